"""Subscriptions at Stripe follow ours, under `collection: meters`: begun, changed and ended there.

A subscription there has metered prices alone, so that it charges what Stripe has counted and nothing else; its invoices
stay drafts until they are closed here. Each step looks first whether it is done: whatever is killed or lost is done
again, or found done.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.meter_export import metered_segments, slices, slicing
from edgeproxy.collector.billing.meter_export.exporter import Away
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.slices import MINUTE
from edgeproxy.collector.billing.period_close.collection.invoice_items import DAYS_UNTIL_DUE
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.billing.stripe.customers import Made, payer
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.billing.subscriptions import changes, subscriptions
from edgeproxy.collector.database.billing_tables import CANCELED, segments
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.billing_tables import subscriptions as table
from edgeproxy.collector.database.database import LOST, Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.billing import Billing
from edgeproxy.config.collector import Settings

OURS = "edgeproxy_subscription"
"""What says in the metadata of a subscription at Stripe which of ours it is."""
AT_ONCE = 16
ROUND_MAX = 5000
"""Subscriptions that are looked at in a round; the next one goes on behind them."""
PAUSES = (5.0, 30.0, 120.0, 600.0)
"""Seconds until a subscription is taken up again whose step failed so many times."""


class Waits(Exception):
    """Something has to come first."""


class MeterSubscriptions:
    """Has Stripe's subscriptions say what ours do. `known` gives the configuration as it is now."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        known: Callable[[], Settings],
        events: StripeMeterEvents,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._made = Made(database, stripe)
        self._known = known
        self._events = events
        self._clock = clock
        self._failed: dict[str, tuple[int, float]] = {}
        """How often each failed, and when it is taken up again."""
        self._tries: Counter[str] = Counter()
        """Of each, how many Idempotency-Keys are answered by a failure for good."""
        self._after = ""
        """Behind which id the next round begins: who is not charged, or fails, keeps nobody waiting."""
        self._room = asyncio.Semaphore(AT_ONCE)
        self._seldom = log.Seldom(60.0)

    async def step(self) -> int:
        """Do what is due; return for how many subscriptions that was tried."""
        billing = self._known().billing
        if billing is None or billing.mode == "off":
            return 0
        async with self._database.reading() as connection:
            who = await charging.read(connection, billing)
            rows = (await connection.execute(self._due(self._clock()))).all() if who.is_on else []
        self._after = rows[-1].id if len(rows) == ROUND_MAX else ""
        now = self._clock()
        due = [row for row in rows if self._failed.get(row.id, (0, 0.0))[1] <= now and self._concerns(row, who)]
        await asyncio.gather(*(self._one(row.id, billing) for row in due))
        return len(due)

    def _due(self, now: float) -> sa.Select[Any]:
        """Subscriptions that Stripe does not know as they are: a part of one has begun, or it is over."""
        c = segments.c
        new = (c.subscription == table.c.id) & (c.meter == "") & c.told_from.is_(None)
        new &= (c.start <= int(now)) & (c.end > int(now))
        begun, by_meters = sa.exists().where(new), sa.exists().where(new, c.collection == metered_segments.METERS)
        over = (table.c.state == CANCELED) & table.c.told_version.is_not(None)
        differs = (table.c.state != CANCELED) & (by_meters | (table.c.told_version.is_not(None) & begun))
        joined = table.join(customers, customers.c.id == table.c.customer)
        wanted = sa.select(table.c.id, table.c.plan_version, table.c.told_version, customers.c.name)
        due = wanted.select_from(joined).where(over | differs, table.c.id > self._after)
        return due.order_by(table.c.id).limit(ROUND_MAX)

    def _concerns(self, row: Any, who: Charging) -> bool:
        if row.told_version is not None:
            return True
        plan = self._known().plans.get(row.plan_version)
        return who.bills(row.name) and (plan is None or catalog.is_metered(plan))

    async def _one(self, number: str, billing: Billing) -> None:
        async with self._room:
            try:
                await self._follow(number, billing)
            except Waits as what:
                self._put_off(number, str(what), is_failure=False)
            except (StripeFailure, Away) as failure:
                if isinstance(failure, StripeFailure) and failure.outcome in (Outcome.FAILED, Outcome.REUSED):
                    self._tries[number] += 1
                self._put_off(number, str(failure), is_failure=True)
            except LOST:
                raise
            except Exception as fault:  # Of this one: the others go on.
                log.get().error("a fault in the collector", subscription=number, exc_info=fault)
                self._put_off(number, repr(fault), is_failure=True)
            else:
                self._failed.pop(number, None)

    def _put_off(self, number: str, why: str, *, is_failure: bool) -> None:
        count, _ = self._failed.get(number, (0, 0.0))
        self._failed[number] = count + 1, self._clock() + PAUSES[min(count, len(PAUSES) - 1)]
        if is_failure:
            self._seldom.error("a subscription at Stripe is not as ours, and is tried again", why, subscription=number)

    async def _follow(self, number: str, billing: Billing) -> None:
        """Do the next step for a subscription; raises Waits, StripeFailure and Away."""
        async with self._database.writing() as connection:
            loaded = await subscriptions.of_id(connection, number)
            mine = (segments.c.subscription == number, segments.c.meter == "")
            rows = (await connection.execute(sa.select(segments).where(*mine).order_by(segments.c.start))).all()
        row, last = loaded.row, rows[-1]
        plan = loaded.plans[last.plan_version]
        is_told = row.state != CANCELED and last.collection == metered_segments.METERS and catalog.is_metered(plan)
        if row.told_version is None:
            if is_told:
                await self._begin(loaded, last, billing)
        elif not is_told:
            await self._end(loaded, [one for one in rows if one.told_from is not None][-1])
        elif row.told_version == last.plan_version:
            await self._write(number, last, told_from=last.start)  # The next period, by the same prices.
        else:
            await self._change(loaded, rows[-2], last)

    # ---- steps

    async def _begin(self, loaded: subscriptions.Loaded, segment: Any, billing: Billing) -> None:
        row = loaded.row
        customer = await payer(
            self._database,
            self._stripe,
            row.customer,
            loaded.customer.name,
            since=row.created_at // 1000,
            before=self._made,
        )
        there = await self._find(row.id, customer)
        if there is None:
            there = await self._stripe.call(
                "v1.subscriptions.create",
                key=f"{row.id}_{segment.plan_version}_{segment.period_start}_begin_{self._tries[row.id]}",
                customer=customer,
                items=[{"price": price} for price in await self._prices(loaded, segment)],
                billing_mode={"type": "flexible"},
                billing_cycle_anchor_config=anchor_of(row.anchor),
                proration_behavior="none",
                collection_method="send_invoice",
                days_until_due=DAYS_UNTIL_DUE,
                metadata={OURS: row.id},
                **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
            )
        if not there.get("pause_collection"):  # Else its invoices are sent by themselves, whatever becomes of us.
            hold = {"behavior": "keep_as_draft"}
            await self._stripe.call("v1.subscriptions.update", there["id"], pause_collection=hold)
        await self._write(
            row.id, segment, {"stripe_id": there["id"], "told_version": segment.plan_version}, told_from=after(there)
        )

    async def _change(self, loaded: subscriptions.Loaded, old: Any, new: Any) -> None:
        """Have the usage until now charged by the old prices, and what comes by the new ones."""
        row = loaded.row
        is_within = old.period_start == new.period_start
        if is_within and old.told_from is not None:
            await self._flush(loaded, old)
        else:
            await self._must_be_drafted(row.id, old.period_start)
        there = await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        wanted = set(await self._prices(loaded, new))
        items = there["items"]["data"]
        if {price_of(item) for item in items} != wanted:
            there = await self._stripe.call(
                "v1.subscriptions.update",
                row.stripe_id,
                key=f"{row.id}_{new.plan_version}_{new.start}_change_{self._tries[row.id]}",
                items=[
                    *({"id": item["id"], "deleted": True} for item in items),
                    *({"price": price} for price in sorted(wanted)),
                ],
                proration_behavior="create_prorations",
            )
        if is_within:
            await self._write(row.id, old, told_until=int(self._clock()))
        await self._write(row.id, new, {"told_version": new.plan_version}, told_from=after(there))

    async def _end(self, loaded: subscriptions.Loaded, last: Any) -> None:
        """End it at Stripe; where that is within a period, what was used is an item of our own invoice."""
        row = loaded.row
        is_within = last.end < last.period_end
        if not is_within:
            await self._must_be_drafted(row.id, last.period_start)
        there = await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id)
        if there["status"] != CANCELED:
            await self._stripe.call("v1.subscriptions.cancel", row.stripe_id, invoice_now=False, prorate=False)
        if is_within:  # What a change has left for the next invoice of it there is an item of ours, too.
            for item in await self._stripe.every("v1.invoice_items.list", customer=there["customer"], pending=True):
                details = (item.get("parent") or {}).get("subscription_details") or {}
                if details.get("subscription") == row.stripe_id:
                    await self._stripe.call("v1.invoice_items.delete", item["id"])
        async with self._database.writing() as connection:
            if is_within:
                mine = (segments.c.subscription == row.id) & (segments.c.period_start == last.period_start)
                values = {"collection": "invoice_items", "told_until": int(self._clock())}
                await connection.execute(sa.update(segments).where(mine).values(**values))
            await connection.execute(sa.update(table).where(table.c.id == row.id).values(told_version=None))

    async def _flush(self, loaded: subscriptions.Loaded, old: Any) -> None:
        """Have Stripe count what was used until a change; raises Waits, Away and StripeFailure until it has."""
        now, meters = self._clock(), self._known().meters
        name = loaded.customer.name
        of = metered_segments.slicing_of(self._database, self._stripe.is_live, meters)
        async with self._database.writing() as connection:
            reached = await slicing.reached(connection)
            if reached is None or not slices.is_complete(
                Span(min(reached, old.end), old.end), now, await slicing.watermarks(connection)
            ):
                raise Waits("what was used until the change is not complete")
            since = old.start - metered_segments.KNOWN_SECONDS
            targets = await metered_segments.targets(connection, meters, since, loaded.row.customer)
            await slicing.level(connection, of, targets, name, Span(old.start, old.end), now)
        async with self._database.reading() as connection:
            if await metered_segments.is_under_way(connection, name, [old.start]):
                raise Waits("usage is on its way to Stripe")
            known = await metered_segments.payers(connection, [name])
        await self._events.learn({**self._events.customers, **known})
        try:
            await metered_segments.agreed(self._database, self._events, name, old, now)
        except metered_segments.Apart as apart:
            raise Waits(str(apart)) from None

    # ---- what they ask

    async def _find(self, number: str, customer: str) -> dict[str, Any] | None:
        """The subscription at Stripe that is ours and not over."""
        for there in await self._stripe.every("v1.subscriptions.list", customer=customer):
            if (there.get("metadata") or {}).get(OURS) == number:
                return there
        return None

    async def _prices(self, loaded: subscriptions.Loaded, segment: Any) -> list[str]:
        """Stripe's ids of the prices of a version; raises Waits where some are missing."""
        plan = loaded.plans[segment.plan_version]
        keys = [catalog.lookup_key(segment.plan_version, meter) for meter in plan.meters]
        found = await catalog.prices(self._stripe, keys)
        missing = [key for key in keys if key not in found or not found[key]["active"]]
        if missing:
            now = self._clock()
            alert = Alert(
                key=f"billing-catalog-{segment.plan_version}-{int(now) // 86400}",
                kind="billing_catalog",
                severity="page",
                title=f"Stripe has no price for {segment.plan_version}: run edgeproxy billing sync",
                details={"missing": missing},
                at=now,
            )
            async with self._database.writing() as connection:
                await raise_once(connection, alert)
            raise Waits(f"Stripe has no price {missing[0]}")
        return [found[key]["id"] for key in keys]

    async def _must_be_drafted(self, number: str, period_start: int) -> None:
        """Raise Waits where Stripe's draft of a period is not held yet: a change now would be on it."""
        c = invoices_table.c
        of = (c.subscription == number, c.period_start == period_start, c.kind == changes.PERIOD)
        async with self._database.reading() as connection:
            row = (await connection.execute(sa.select(c.stripe_id, c.state).where(*of))).one_or_none()
        if row is None or (row.stripe_id is None and row.state in (invoices.DRAFT, invoices.CLOSING)):
            raise Waits("Stripe has not drafted the invoice of the period before")

    async def _write(
        self, number: str, segment: Any, subscription: dict[str, Any] | None = None, **values: Any
    ) -> None:
        mine = (segments.c.subscription == number) & (segments.c.meter == "") & (segments.c.start == segment.start)
        async with self._database.writing() as connection:
            await connection.execute(sa.update(segments).where(mine).values(**values))
            if subscription:
                await connection.execute(sa.update(table).where(table.c.id == number).values(**subscription))


def anchor_of(anchor: int | None) -> dict[str, int]:
    """When periods begin, as Stripe takes it: on the 1st, or on the day and at the time of an anchor."""
    at = datetime.fromtimestamp(anchor or 0, UTC)
    return {"day_of_month": at.day, "hour": at.hour, "minute": at.minute, "second": 0}


def after(there: dict[str, Any]) -> int:
    """The first minute of which Stripe counts all events for the items of a subscription."""
    latest = max(item["created"] for item in there["items"]["data"])
    return int(latest) // MINUTE * MINUTE + MINUTE


def price_of(item: dict[str, Any]) -> str:
    """The price of an item."""
    price = item["price"]
    return str(price if isinstance(price, str) else price["id"])
