"""The subscriptions at Stripe follow ours under `collection: meters`: they are created, changed and ended there.

A subscription there has only metered prices, so it charges exactly the usage counted by Stripe. Its invoices stay
drafts until they are closed here. Each step first checks whether it is done: after a crash or a lost answer it is
repeated, or found done.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.meter_export import metered_segments, slices, slicing
from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.meter_keys import list_prices
from edgeproxy.collector.billing.meter_export.metered_segments import SegmentRow
from edgeproxy.collector.billing.meter_export.slices import MINUTE
from edgeproxy.collector.billing.period_close.collection.invoice_items import DAYS_UNTIL_DUE
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.billing.subscriptions import cancellations, changes, plan_versions, subscription_rows
from edgeproxy.collector.database.billing_tables import CANCELED, segments
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.billing_tables import subscriptions as table
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.settings import CollectorSettings

SUBSCRIPTION_METADATA = "edgeproxy_subscription"
"""The metadata key of a Stripe subscription for our id."""
AT_ONCE = 16
ROUND_MAX = 5000
"""The most subscriptions that a round reads. The next round continues after them."""
PAUSES = (5.0, 30.0, 120.0, 600.0)
"""Seconds until the next try, by the number of failures."""


class SubscriptionNotReadyError(Exception):
    """Another step must come first."""


class DueSubscription(NamedTuple):
    """A subscription that differs at Stripe."""

    id: str
    plan_version: str
    stripe_version: str | None
    """The plan version whose prices Stripe's subscription has, or None."""
    name: str
    """The customer's name."""


class MeterSubscriptions:
    """Makes Stripe's subscriptions follow ours. `settings` returns the current configuration."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        settings: Callable[[], CollectorSettings],
        events: StripeMeterEvents,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._customers = StripeCustomers(database, stripe)
        self._settings = settings
        self._events = events
        self._clock = clock
        self._failed: dict[str, tuple[int, float]] = {}
        """The number of failures of each subscription, and the time of its next try."""
        self._tries: Counter[str] = Counter()
        """The number of used Idempotency-Keys of each subscription."""
        self._after = ""
        """The next round begins after this id, so that failing subscriptions do not block the others."""
        self._room = asyncio.Semaphore(AT_ONCE)
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self) -> int:
        """Update the due subscriptions at Stripe, and return their number."""
        billing = self._settings().billing
        if billing is None or billing.mode == "off":
            return 0
        async with self._database.reading() as connection:
            charging_state = await charging.fetch_charging(connection, billing)
            rows = await self._list_due(connection, self._clock()) if charging_state.is_on else []
            plans = await plan_versions.fetch_readable_plans(connection, {row.plan_version for row in rows})
        self._after = rows[-1].id if len(rows) == ROUND_MAX else ""
        now = self._clock()
        due = [
            row
            for row in rows
            if row.plan_version in plans and self._failed.get(row.id, (0, 0.0))[1] <= now
            if is_concerned(row, plans, charging_state)
        ]
        await asyncio.gather(*(self._follow_safely(row.id, billing) for row in due))
        return len(due)

    async def _list_due(self, connection: AsyncConnection, now: float) -> list[DueSubscription]:
        """Return the subscriptions that differ at Stripe: a segment has begun, or the subscription is over."""
        columns = segments.c
        new = (columns.subscription == table.c.id) & (columns.meter == "") & columns.told_from.is_(None)
        new &= (columns.start <= int(now)) & (columns.end > int(now))
        begun, by_meters = sa.exists().where(new), sa.exists().where(new, columns.collection == metered_segments.METERS)
        over = (table.c.state == CANCELED) & table.c.told_version.is_not(None)
        differs = (table.c.state != CANCELED) & (by_meters | (table.c.told_version.is_not(None) & begun))
        joined = table.join(customers, customers.c.id == table.c.customer)
        statement = sa.select(table.c.id, table.c.plan_version, table.c.told_version, customers.c.name)
        due = statement.select_from(joined).where(over | differs, table.c.id > self._after)
        rows = await connection.execute(due.order_by(table.c.id).limit(ROUND_MAX))
        return [DueSubscription._make(row) for row in rows]

    async def _follow_safely(self, number: str, billing: Billing) -> None:
        async with self._room:
            try:
                await self._follow(number, billing)
            except SubscriptionNotReadyError as error:
                self._put_off(number, str(error), is_failure=False)
            except (StripeCallError, MeterEventsUnavailableError) as error:
                # Stripe would repeat this answer for the Idempotency-Key, so the next try has another one.
                if isinstance(error, StripeCallError) and error.outcome in (CallOutcome.FAILED, CallOutcome.REUSED):
                    self._tries[number] += 1
                self._put_off(number, str(error), is_failure=True)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:  # A fault of this one must not stop the others.
                log.get_logger().error("a fault in the collector", subscription=number, exc_info=error)
                self._put_off(number, repr(error), is_failure=True)
            else:
                self._failed.pop(number, None)

    def _put_off(self, number: str, why: str, *, is_failure: bool) -> None:
        count, _ = self._failed.get(number, (0, 0.0))
        self._failed[number] = count + 1, self._clock() + PAUSES[min(count, len(PAUSES) - 1)]
        if is_failure:
            self._limited_log.error(
                "a subscription at Stripe is not as ours, and is tried again", why, subscription=number
            )

    async def _follow(self, number: str, billing: Billing) -> None:
        """Take the next step for a subscription.

        Raises SubscriptionNotReadyError, StripeCallError and MeterEventsUnavailableError.
        """
        async with self._database.writing() as connection:
            loaded = await subscription_rows.get_by_id(connection, number)
            conditions = (segments.c.subscription == number, segments.c.meter == "")
            statement = sa.select(*metered_segments.SEGMENT_FIELDS).where(*conditions).order_by(segments.c.start)
            rows = [SegmentRow(*row) for row in await connection.execute(statement)]
        row, last = loaded.row, rows[-1]
        plan = loaded.plans[last.plan_version]
        is_metered = row.state != CANCELED and last.collection == metered_segments.METERS and catalog.is_metered(plan)
        if row.stripe_version is None:
            if is_metered:
                await self._create_subscription(loaded, last, billing)
        elif not is_metered:
            await self._end_subscription(loaded, [segment for segment in rows if segment.counted_from is not None][-1])
        elif row.stripe_version == last.plan_version:
            await self._continue_subscription(loaded, rows)
        else:
            await self._change_subscription(loaded, rows[-2], last)

    # ---- steps

    async def _create_subscription(
        self, loaded: subscription_rows.LoadedSubscription, segment: SegmentRow, billing: Billing
    ) -> None:
        row = loaded.row
        customer = await self._customers.get_or_create(row.customer, loaded.customer.name, since=row.created_at // 1000)
        # After a crash or a lost answer the subscription exists, and its id is not stored here.
        stripe_subscription = await self._find_subscription(row.id, customer)
        if stripe_subscription is None:
            await self._customers.fetch_payer(row.customer, customer)
            stripe_subscription = await self._stripe.call(
                "v1.subscriptions.create",
                key=f"{row.id}_{segment.plan_version}_{segment.period_start}_begin_{self._tries[row.id]}",
                customer=customer,
                items=[{"price": price} for price in await self._fetch_price_ids(loaded, segment)],
                billing_mode={"type": "flexible"},
                billing_cycle_anchor_config=build_anchor(row.anchor),
                proration_behavior="none",
                collection_method="send_invoice",
                days_until_due=DAYS_UNTIL_DUE,
                metadata={SUBSCRIPTION_METADATA: row.id},
                **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
            )
        if not stripe_subscription.get("pause_collection"):  # Otherwise Stripe would send its invoices without us.
            hold = {"behavior": "keep_as_draft"}
            await self._stripe.call("v1.subscriptions.update", stripe_subscription["id"], pause_collection=hold)
        await self._write_segment(
            row.id,
            segment,
            {"stripe_id": stripe_subscription["id"], "told_version": segment.plan_version},
            told_from=compute_counted_from(stripe_subscription),
        )

    async def _continue_subscription(
        self, loaded: subscription_rows.LoadedSubscription, rows: Sequence[SegmentRow]
    ) -> None:
        """Continue with the same prices in the next period.

        A subscription that a person ended at Stripe is created again. Before that, the invoice of the preceding period
        must be settled. Stripe has no draft of it.
        """
        row, last = loaded.row, rows[-1]
        assert row.stripe_id is not None
        stripe_subscription = await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        if stripe_subscription["status"] != CANCELED:
            await self._write_segment(row.id, last, told_from=last.start)
            return
        await self._check_drafted(row.id, rows[-2].period_start)
        async with self._database.writing() as connection:
            await connection.execute(sa.update(table).where(table.c.id == row.id).values(told_version=None))

    async def _change_subscription(
        self, loaded: subscription_rows.LoadedSubscription, old: SegmentRow, new: SegmentRow
    ) -> None:
        """Switch prices at Stripe: earlier usage is charged at the old prices, later usage at the new ones."""
        row = loaded.row
        assert row.stripe_id is not None
        is_within = old.period_start == new.period_start
        # Stripe must have counted the earlier usage at the old prices before they change.
        if is_within and old.counted_from is not None:
            await self._flush_usage(loaded, old)
        else:
            await self._check_drafted(row.id, old.period_start)
        stripe_subscription = await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        prices = set(await self._fetch_price_ids(loaded, new))
        items = stripe_subscription["items"]["data"]
        # After a crash or a lost answer Stripe may have the new prices already.
        if {get_price_id(item) for item in items} != prices:
            stripe_subscription = await self._stripe.call(
                "v1.subscriptions.update",
                row.stripe_id,
                key=f"{row.id}_{new.plan_version}_{new.start}_change_{self._tries[row.id]}",
                items=[
                    *({"id": item["id"], "deleted": True} for item in items),
                    *({"price": price} for price in sorted(prices)),
                ],
                proration_behavior="create_prorations",
            )
        if is_within:
            await self._write_segment(row.id, old, told_until=int(self._clock()))
        await self._write_segment(
            row.id, new, {"told_version": new.plan_version}, told_from=compute_counted_from(stripe_subscription)
        )

    async def _end_subscription(self, loaded: subscription_rows.LoadedSubscription, last: SegmentRow) -> None:
        """End a subscription at Stripe. Within a period, its usage becomes an item of our own invoice."""
        row = loaded.row
        assert row.stripe_id is not None
        is_within = last.end < last.period_end
        if not is_within:
            await self._check_drafted(row.id, last.period_start)
        stripe_subscription = await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        if stripe_subscription["status"] != CANCELED:
            async with self._database.reading() as connection:
                feedback = await cancellations.build_stripe_details(connection, row.id)
            await self._stripe.call(
                # Our own invoice has the usage of this period, so Stripe must make no invoice of it.
                "v1.subscriptions.cancel",
                row.stripe_id,
                invoice_now=False,
                prorate=False,
                **feedback,
            )
        if is_within:  # An amount that a change left for Stripe's next invoice is an item of ours, too.
            for item in await self._stripe.list_all(
                "v1.invoice_items.list", customer=stripe_subscription["customer"], pending=True
            ):
                details = (item.get("parent") or {}).get("subscription_details") or {}
                if details.get("subscription") == row.stripe_id:
                    await self._stripe.call("v1.invoice_items.delete", item["id"])
        async with self._database.writing() as connection:
            if is_within:
                condition = (segments.c.subscription == row.id) & (segments.c.period_start == last.period_start)
                values = {"collection": "invoice_items", "told_until": int(self._clock())}
                await connection.execute(sa.update(segments).where(condition).values(**values))
            await connection.execute(sa.update(table).where(table.c.id == row.id).values(told_version=None))

    async def _flush_usage(self, loaded: subscription_rows.LoadedSubscription, old: SegmentRow) -> None:
        """Flush the usage before a change to Stripe.

        Raises SubscriptionNotReadyError, MeterEventsUnavailableError and StripeCallError until Stripe has counted it.
        """
        now, meters = self._clock(), self._settings().meters
        name = loaded.customer.name
        account = metered_segments.build_slicing(self._database, self._stripe.is_live, meters)
        async with self._database.writing() as connection:
            reached = await slicing.find_reached(connection)
            if reached is None or not slices.is_complete(
                Span(min(reached, old.end), old.end), now, await slicing.fetch_watermarks(connection)
            ):
                raise SubscriptionNotReadyError("what was used until the change is not complete")
            since = old.start - metered_segments.KNOWN_SECONDS
            targets = await metered_segments.fetch_targets(connection, meters, since, loaded.row.customer)
            await slicing.level_customer(connection, account, targets, name, Span(old.start, old.end), now)
        async with self._database.reading() as connection:
            if await metered_segments.is_under_way(connection, name, [old.start]):
                raise SubscriptionNotReadyError("usage is on its way to Stripe")
            stripe_ids = await metered_segments.fetch_stripe_ids(connection, [name])
        await self._events.learn_names({**self._events.customers, **stripe_ids})
        try:
            await metered_segments.verify_sums(self._database, self._events, name, old, now)
        except metered_segments.UsageMismatchError as error:
            raise SubscriptionNotReadyError(str(error)) from None

    # ---- lookups

    async def _find_subscription(self, number: str, customer: str) -> StripeObject | None:
        """Return our subscription at Stripe that is not over, or None."""
        for stripe_subscription in await self._stripe.list_all("v1.subscriptions.list", customer=customer):
            if (stripe_subscription.get("metadata") or {}).get(SUBSCRIPTION_METADATA) == number:
                return stripe_subscription
        return None

    async def _fetch_price_ids(self, loaded: subscription_rows.LoadedSubscription, segment: SegmentRow) -> list[str]:
        """Return Stripe's ids of the prices of a version. Raises SubscriptionNotReadyError if some are missing."""
        plan = loaded.plans[segment.plan_version]
        keys = [catalog.format_lookup_key(segment.plan_version, key) for key in list_prices(plan)]
        prices = await catalog.fetch_prices(self._stripe, keys)
        missing = [key for key in keys if key not in prices or not prices[key]["active"]]
        if missing:
            now = self._clock()
            alert = Alert(
                key=f"billing-catalog-{segment.plan_version}-{int(now) // 86400}",
                kind=AlertKind.CATALOG_PRICE_MISSING,
                title=f"Stripe has no price for {segment.plan_version}: run edgeproxy billing sync",
                details={"price": missing[0], "missing": missing},
                at=now,
            )
            async with self._database.writing() as connection:
                await raise_once(connection, alert)
            raise SubscriptionNotReadyError(f"Stripe has no price {missing[0]}")
        return [prices[key]["id"] for key in keys]

    async def _check_drafted(self, number: str, period_start: int) -> None:
        """Raise SubscriptionNotReadyError if Stripe's draft of a period was not adopted yet.

        A change made now would appear on that draft.
        """
        columns = invoices_table.c
        conditions = (
            columns.subscription == number,
            columns.period_start == period_start,
            columns.kind == changes.PERIOD,
        )
        async with self._database.reading() as connection:
            row = (
                await connection.execute(sa.select(columns.stripe_id, columns.state).where(*conditions))
            ).one_or_none()
        if row is None or (row.stripe_id is None and row.state in (invoices.DRAFT, invoices.CLOSING, invoices.HELD)):
            raise SubscriptionNotReadyError("Stripe has not drafted the invoice of the period before")

    async def _write_segment(
        self, number: str, segment: SegmentRow, subscription: dict[str, object] | None = None, **values: object
    ) -> None:
        condition = (segments.c.subscription == number) & (segments.c.meter == "") & (segments.c.start == segment.start)
        async with self._database.writing() as connection:
            await connection.execute(sa.update(segments).where(condition).values(**values))
            if subscription:
                await connection.execute(sa.update(table).where(table.c.id == number).values(**subscription))


def is_concerned(row: DueSubscription, plans: Mapping[str, Plan], charging_state: Charging) -> bool:
    """Return whether Stripe has the subscription or must get it."""
    is_billed = charging_state.bills(row.name) and catalog.is_metered(plans[row.plan_version])
    return row.stripe_version is not None or is_billed


def build_anchor(anchor: int | None) -> dict[str, int]:
    """Return the start of periods in Stripe's form: the 1st, or the day and time of an anchor."""
    at = datetime.fromtimestamp(anchor or 0, UTC)
    return {"day_of_month": at.day, "hour": at.hour, "minute": at.minute, "second": 0}


def compute_counted_from(stripe_subscription: StripeObject) -> int:
    """Return the first minute whose events Stripe counts in full for the items of a subscription."""
    latest = max(item["created"] for item in stripe_subscription["items"]["data"])
    return int(latest) // MINUTE * MINUTE + MINUTE


def get_price_id(item: StripeObject) -> str:
    """Return the price of an item."""
    price = item["price"]
    return str(price if isinstance(price, str) else price["id"])
