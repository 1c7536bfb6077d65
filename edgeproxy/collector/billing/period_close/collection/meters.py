"""`collection: meters`: Stripe counts usage and drafts the invoice of a period with it; all else is an item of that.

Items are fees, what came late, and what Stripe does not charge by its meters: of a segment that it was never told of,
or that it could not count. So an invoice has the rater's lines in any case, and is compared with them before it is
finalized and once it is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows, slicing
from edgeproxy.collector.billing.meter_export.exporter import Away
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.metered_lines import split
from edgeproxy.collector.billing.meter_export.outbox_rows import new_row
from edgeproxy.collector.billing.mismatch import UNITS, Row
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.period_close.collection.invoice_items import (
    DRAFT,
    OURS,
    Differs,
    InvoiceItems,
    collecting,
    must_agree,
    step_key,
)
from edgeproxy.collector.billing.rating.rater import Line, Span
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.billing.subscriptions import changes, subscriptions
from edgeproxy.collector.database.billing_tables import segments
from edgeproxy.collector.database.billing_tables import subscriptions as subscriptions_table
from edgeproxy.collector.database.database import Database
from edgeproxy.config.billing import Billing
from edgeproxy.config.collector import Settings

DRAFTED_TRIES = 7
"""Times that a draft of Stripe's is looked for, in the first 45 minutes, until somebody hears that there is none."""
SETTLED_TRIES = 36
"""Times that it is looked whether Stripe has counted what it was told, in the first six hours, until somebody hears."""


class NotYet(StripeFailure):
    """What has to come first has not happened yet; nothing is wrong with that."""

    def __init__(self, why: str) -> None:
        super().__init__(Outcome.BUSY, why)

    def __str__(self) -> str:
        return self.message


class Meters(InvoiceItems):
    """Closes the invoices that Stripe drafts for subscriptions; others are made here, as in the other mode."""

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], Settings]) -> None:
        super().__init__(database, stripe)
        self._settings = settings
        self._events = StripeMeterEvents(stripe)

    async def begin(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Have the draft of a period, which Stripe does not finalize by itself; raises StripeFailure."""
        charged = await self._charged(row)
        if not charged:
            return await super().begin(row, billing)
        if row.stripe_id is not None:
            return await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        there = await self._drafted(row)
        if there is None:
            await self._missing(row)
            raise NotYet("Stripe has not drafted the invoice yet")
        person = await self._stripe.call("v1.customers.retrieve", there["customer"])
        there = await self._stripe.call(
            "v1.invoices.update",
            there["id"],
            key=step_key(row, "hold"),
            auto_advance=False,
            metadata={OURS: row.id},
            **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
            **collecting(person),
        )
        async with self._database.writing() as connection:
            await invoices.update(connection, row.id, stripe_id=there["id"], failures=0)
        return there

    async def is_drafted(self, row: Any) -> bool:
        """Whether Stripe drafts an invoice by itself, whatever it comes to."""
        return bool(await self._charged(row))

    async def fix(self, connection: AsyncConnection, row: Any, now: float) -> None:
        """Have the outbox say what the lines do, and no more from here on: what comes later is late. Raises NotYet."""
        charged = await metered_segments.charged(connection, row.subscription, row.period_start)
        if row.kind != changes.PERIOD or not charged:
            return
        reached = await slicing.reached(connection)
        if reached is None or reached < charged[-1].end:
            raise NotYet("usage of the period is not complete")
        meters = self._settings().meters
        of = metered_segments.slicing_of(self._database, self._stripe.is_live, meters)
        targets = await metered_segments.targets(
            connection, meters, row.period_start - metered_segments.KNOWN_SECONDS, row.customer
        )
        for segment in charged:
            if segment.told_until is None:
                await slicing.level(connection, of, targets, row.name, Span(segment.start, segment.end), now)
        await self._gauge(connection, row, charged[-1], of, now)
        mine = (segments.c.subscription == row.subscription, segments.c.period_start == row.period_start)
        open_ = (*mine, segments.c.told_until.is_(None))
        await connection.execute(sa.update(segments).where(*open_).values(told_until=int(now)))

    async def _gauge(self, connection: AsyncConnection, row: Any, last: Any, of: slicing.Slicing, now: float) -> None:
        """Tell what is no sum and belongs to the period: one value of each meter, by the plan that is in force last."""
        loaded = await subscriptions.of_id(connection, row.subscription)
        known = [one for one in loaded.held.segments if one.span.start < row.period_end]
        segment = known[-1]
        if segment.span.start != last.start:
            return
        terms = quantities.Terms(self._settings().meters, loaded.held.anchor)
        found = await quantities.quantities(connection, row.name, known, segment, terms)
        had = await outbox_rows.fixed(connection, Span(last.end - 1, last.end), row.name)
        rows = [
            new_row(of.account, (row.name, key.meter, last.start, 0), last.end, last.start, value, since=last.told_from)
            for key, value in found.items()
            if key.meter in of.gauges and value and (row.name, key.meter, last.start) not in had
        ]
        await outbox_rows.put(connection, rows, int(now * 1000))

    async def close(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Bring an invoice whose lines are written to where it is paid, or sent; raises Differs and StripeFailure."""
        charged = await self._charged(row)
        if not charged:
            return await super().close(row, billing)
        there = await self.begin(row, billing)
        async with self._database.reading() as connection:
            lines = await invoices.lines(connection, row.id)
        metered, items = split(lines, await self._counted(row, charged))
        if there["status"] == DRAFT:
            await self._fill(row, there, items)
            await self._agree(row, there, [*metered, *items])
            there = await self._stripe.call(
                "v1.invoices.finalize_invoice", there["id"], key=step_key(row, "finalize"), auto_advance=False
            )
        if there["status"] == "open":
            await self._agree(row, there, [*metered, *items])  # Quantities are taken when it is finalized.
            there = await self._collect(row, there)
        return there

    async def void(self, row: Any) -> dict[str, Any] | None:
        """Take an invoice back; a draft of Stripe's own cannot be deleted, so it is finalized before. Raises
        StripeFailure."""
        if row.stripe_id is not None and await self._charged(row):
            there = await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
            if there["status"] == DRAFT:
                key = step_key(row, "finalize")
                await self._stripe.call("v1.invoices.finalize_invoice", there["id"], key=key, auto_advance=False)
        return await super().void(row)

    async def _charged(self, row: Any) -> list[Any]:
        """The segments whose usage is on this invoice by Stripe's meters."""
        if row.kind != changes.PERIOD:
            return []
        async with self._database.reading() as connection:
            return await metered_segments.charged(connection, row.subscription, row.period_start)

    async def _drafted(self, row: Any) -> dict[str, Any] | None:
        """What Stripe has drafted for a period."""
        wanted = sa.select(subscriptions_table.c.stripe_id).where(subscriptions_table.c.id == row.subscription)
        async with self._database.reading() as connection:
            subscription = (await connection.execute(wanted)).scalar_one()
        for there in await self._stripe.every("v1.invoices.list", subscription=subscription):
            if (there.get("metadata") or {}).get(OURS) == row.id:
                return there
            if there["billing_reason"] == "subscription_cycle" and there["period_end"] == row.period_end:
                return there
        return None

    async def _missing(self, row: Any) -> None:
        """Tell of a draft that is not there 45 minutes after the period."""
        if row.failures < DRAFTED_TRIES:
            return
        alert = Alert(
            key=f"billing-draft-missing-{row.id}",
            kind="billing_draft_missing",
            severity="page",
            title=f"Stripe has no draft for {row.name} and the period {row.period}: look at its subscription there",
            details={"invoice": row.id},
            at=time.time(),
        )
        async with self._database.writing() as connection:
            await raise_once(connection, alert)

    async def _counted(self, row: Any, charged: Sequence[Any]) -> Mapping[tuple[int, str], int]:
        """What Stripe has counted of each segment and meter, once that is certain; raises NotYet, and Differs where it
        should have been for long."""
        async with self._database.reading() as connection:
            waits = await metered_segments.is_under_way(connection, row.name, [one.start for one in charged])
            known = await metered_segments.payers(connection, [row.name])
        why = "usage is on its way to Stripe"
        rows: list[Row] = []
        if not waits:
            await self._events.learn({**self._events.customers, **known})  # Others are closed meanwhile.
            found: dict[tuple[int, str], int] = {}
            for one in charged:
                try:
                    sums = await metered_segments.agreed(self._database, self._events, row.name, one, time.time())
                except Away as away:
                    raise NotYet(str(away)) from None
                except metered_segments.Apart as apart:
                    why = str(apart)
                    rows = [both._replace(meter=both.meter + UNITS) for both in apart.rows]
                    break
                found |= {(one.start, meter): quantity for meter, quantity in sums.items()}
            else:
                return found
        if row.failures >= SETTLED_TRIES:
            raise Differs(why, rows)
        raise NotYet(why)

    async def _agree(self, row: Any, there: dict[str, Any], lines: Sequence[Line]) -> None:
        """Compare what Stripe has with the rater, but for lines of nothing, which Stripe has others of."""
        if row.accepted_why is None:
            there = await self._stripe.call("v1.invoices.retrieve", there["id"])
            items = await self._stripe.every("v1.invoices.line_items.list", there["id"])
            must_agree(
                there, [one for one in items if one["amount"]], [line for line in lines if line.amount], row.name
            )
