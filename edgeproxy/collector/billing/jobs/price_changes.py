"""The periodic work of price changes: finish due ones, notify customers in time, and create the prices at Stripe."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.alerts.alert import Alert, is_unraised, raise_alerts, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.billing.subscriptions import plan_versions, price_changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import price_changes as changes_table
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.unreadable_rows import skip_unreadable
from edgeproxy.config.collector.catalog import get_plan_name
from edgeproxy.config.collector.settings import CollectorSettings

CALLER = Caller("billing")
WITHDRAWN_SECONDS_MAX = 30 * 86400
"""For how many seconds after the time of a withdrawn change customers are still notified."""
PAGE = 100
"""The most customers notified in one transaction."""


class PriceChangeJob:
    """Carries out price changes.

    `settings` returns the current configuration. `link` returns the address of the page with a customer's plan, or None
    if there is no such page.
    """

    def __init__(
        self,
        database: Database,
        settings: Callable[[], CollectorSettings],
        link: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._link = link
        self._synced: set[str] = set()
        """The versions whose prices Stripe has."""

    async def finish_due(self, now: float) -> int:
        """Mark the changes that are done by a Unix second, and return their number."""
        async with self._database.writing() as connection:
            return await price_changes.finish_due_changes(connection, CALLER, now)

    async def notify_customers(self, now: float) -> int:
        """Raise the alerts of customers whose price changes soon, or whose change was withdrawn.

        Return their number.
        """
        billing = self._settings().billing
        if billing is None:
            return 0
        async with self._database.reading() as connection:
            moves = await plan_versions.fetch_moves(connection)
            versions = await price_changes.fetch_versions(connection)
        count = await self._notify_withdrawn(now)
        for move in moves:
            if move.at - billing.price_notice <= now:
                others = [other for other in moves if other.change == move.change]
                count += await self._notify_subscribers(move, others, versions, now, billing.price_notice)
        return count

    async def _notify_subscribers(
        self, move: PriceMove, moves: Sequence[PriceMove], versions: Sequence[str], now: float, notice: float
    ) -> int:
        """Raise the alerts of the subscribers that a move affects within `notice` seconds."""
        count, after = 0, ""
        key = sa.literal(f"{_format_key(move.change)}:") + customers.c.name
        # Customers with an alert are left out. So a run that was interrupted goes on where it ended.
        query = price_changes.build_subscribers(move, moves, versions).where(is_unraised(key))
        query = query.order_by(subscriptions.c.id).limit(PAGE)
        while True:
            async with self._database.writing() as connection:
                page = (await connection.execute(query.where(subscriptions.c.id > after))).all()
                notices = [
                    await skip_unreadable(self._find_notice(connection, row.id, move, now, notice)) for row in page
                ]
                count += len(await raise_alerts(connection, [alert for alert in notices if alert is not None]))
            if len(page) < PAGE:
                return count
            after = page[-1].id

    async def _find_notice(
        self, connection: AsyncConnection, number: str, move: PriceMove, now: float, notice: float
    ) -> Alert | None:
        """Return the alert of a subscriber, or None if the move does not affect it, or not soon."""
        (row,) = await subscription_rows.fetch_subscriptions(connection, subscriptions.c.id == number)
        loaded = await subscription_rows.load_subscription(connection, row)
        upcoming = loaded.current.find_upcoming_move()
        # `build_subscribers` does not compute when a subscription moves: with its first paid time from the move on. By
        # then it may have ended, or another move may come first.
        if upcoming is None or upcoming.after != move.after or upcoming.at - notice > now:
            return None
        before, after = (loaded.plans[version] for version in (upcoming.before, upcoming.after))
        at, plan = format_timestamp(upcoming.at * 1000), after.name or get_plan_name(upcoming.after)
        more = {"currency": after.currency, "page": self._link()}
        return Alert(
            key=f"{_format_key(move.change)}:{loaded.customer.name}",
            kind=AlertKind.PRICE_CHANGE,
            customer=loaded.customer.name,
            title=f"The price of the plan {plan} changes on {at[:10]}",
            details={"plan": plan, "at": at, "fee_before": before.fee, "fee": after.fee, **more},
            at=now,
        )

    async def _notify_withdrawn(self, now: float) -> int:
        """Notify the customers of a withdrawn change who had been notified of it."""
        withdrawn = sa.select(changes_table.c.id, changes_table.c.at)
        withdrawn = withdrawn.where(
            changes_table.c.state == price_changes.WITHDRAWN, changes_table.c.at > int(now) - WITHDRAWN_SECONDS_MAX
        )
        async with self._database.reading() as connection:
            changes = (await connection.execute(withdrawn)).all()
        count, notices = 0, alerts.alias("notices")
        for change in changes:
            undone = sa.literal(f"{_format_key(change.id, 'withdrawn')}:") + notices.c.customer
            is_notice = (notices.c.kind == AlertKind.PRICE_CHANGE, notices.c.key.startswith(_format_key(change.id)))
            notified = sa.select(notices.c.customer).where(*is_notice, is_unraised(undone)).limit(PAGE)
            # Each round raises the alerts of its page, so the next query no longer finds these customers.
            names = [""]
            while names:
                async with self._database.writing() as connection:
                    names = list(await connection.scalars(notified))
                    withdrawals = [_build_withdrawal(change.id, change.at, name, now) for name in names]
                    count += len(await raise_alerts(connection, withdrawals))
        return count

    async def sync_prices(self, stripe: Stripe, now: float) -> None:
        """Create the prices of scheduled versions at Stripe if Stripe rates usage. Raises StripeCallError."""
        billing = self._settings().billing
        if billing is None or billing.collection != "meters" or billing.mode == "off":
            return
        async with self._database.reading() as connection:
            moves = await plan_versions.fetch_moves(connection)
            # Remembered, so that a run without news makes no call to Stripe.
            plans = await plan_versions.fetch_readable_plans(connection, {move.after for move in moves} - self._synced)
        if not plans:
            return
        # Steps without a call cannot be repaired by the collector.
        lacking = [step for step in await catalog.sync_catalog(stripe, plans) if not step.call]
        self._synced |= plans.keys()
        if lacking:
            alert = Alert(
                key=f"billing-catalog-{min(plans)}",
                kind=AlertKind.CATALOG_PRICE_MISSING,
                title=f"Stripe has other prices for a version that is scheduled: {lacking[0].name}",
                details={"price": lacking[0].name, "missing": [str(step) for step in lacking]},
                at=now,
            )
            async with self._database.writing() as connection:
                await raise_once(connection, alert)


def _format_key(change: str, state: str = "notice") -> str:
    return f"price-change-{state}:{change}"


def _build_withdrawal(change: str, at: int, customer: str, now: float) -> Alert:
    day = format_timestamp(at * 1000)[:10]
    return Alert(
        key=f"{_format_key(change, 'withdrawn')}:{customer}",
        kind=AlertKind.PRICE_CHANGE,
        customer=customer,
        title=f"The change of your plan's price on {day} does not take place",
        details={"at": format_timestamp(at * 1000)},
        at=now,
    )
