"""`collection: meters`: Stripe counts usage and drafts a period's invoice; everything else is added as items.

Items are fees, late usage, and usage that Stripe's meters do not charge because its segment was not sent or could not
be counted. So every invoice has the rater's lines, and is compared with them before and after it is finalized.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices, line_rows, stripe_reports
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.invoices.invoices import INVOICE_METADATA
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows, slicing
from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.meter_keys import fold_values, list_unit_prices
from edgeproxy.collector.billing.meter_export.metered_lines import split_lines
from edgeproxy.collector.billing.meter_export.metered_segments import SegmentRow
from edgeproxy.collector.billing.meter_export.outbox_rows import new_row
from edgeproxy.collector.billing.mismatch import UNITS_SUFFIX, Comparison
from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.period_close.collection.invoice_items import (
    DRAFT,
    InvoiceItems,
    InvoiceMismatchError,
    build_collection_parameters,
    build_idempotency_key,
    build_seller_parameters,
    check_agreement,
)
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.subscriptions import changes, plan_versions, subscription_rows
from edgeproxy.collector.database.billing_tables import CANCELED, segments
from edgeproxy.collector.database.billing_tables import subscriptions as subscriptions_table
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import CHARGE_MAX
from edgeproxy.config.collector.settings import CollectorSettings

DRAFTED_TRIES = 7
"""The number of tries to find Stripe's draft before an alert. They take the first 45 minutes."""
ENDED_BY_HAND = (
    "its subscription was ended at Stripe by hand, so that there is no draft: once accepted, all its lines are charged "
    "by an invoice of ours"
)
SETTLED_TRIES = 36
"""The number of tries to find all usage counted before the invoice is held. They take the first six hours."""


class InvoiceNotReadyError(StripeCallError):
    """A required earlier step has not happened yet. That is not a fault."""

    def __init__(self, why: str) -> None:
        super().__init__(CallOutcome.BUSY, why)

    def __str__(self) -> str:
        return self.message


class MeteredInvoices(InvoiceItems):
    """Closes the invoices that Stripe drafts for subscriptions.

    Other invoices are created here, as with `invoice_items`.
    """

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], CollectorSettings]) -> None:
        super().__init__(database, stripe)
        self._settings = settings
        self._events = StripeMeterEvents(stripe)

    async def prepare_draft(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Return the draft of a period, after preventing Stripe from finalizing it. Raises StripeCallError."""
        charged = await self._list_charged_segments(row)
        if not charged or row.replaced_ids:  # Stripe drafts no other invoice, so all lines become items.
            return await super().prepare_draft(row, billing)
        if row.stripe_id is not None:
            return await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        invoice = await self._find_draft(row)
        if invoice is None:
            await self._alert_missing_draft(row)
            raise InvoiceNotReadyError("Stripe has not drafted the invoice yet")
        if invoice["status"] != DRAFT:  # A person finalized it before it was found, so it cannot be changed.
            async with self._database.writing() as connection:
                await invoices.update_invoice(connection, row.id, stripe_id=invoice["id"])
                await stripe_reports.apply_stripe_invoice(connection, invoice)
            return invoice
        stripe_customer = await self._customers.fetch_payer(row.customer, invoice["customer"])
        invoice = await self._stripe.call(
            "v1.invoices.update",
            invoice["id"],
            key=build_idempotency_key(row, "hold"),
            auto_advance=False,
            metadata={INVOICE_METADATA: row.id},
            **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
            **build_seller_parameters(billing.seller),
            **build_collection_parameters(row, stripe_customer),
        )
        async with self._database.writing() as connection:
            await invoices.update_invoice(connection, row.id, stripe_id=invoice["id"], failures=0)
        return invoice

    async def is_drafted_by_stripe(self, row: InvoiceRow) -> bool:
        """Return whether Stripe drafts an invoice by itself, whatever its total."""
        return bool(await self._list_charged_segments(row))

    async def fix_usage(self, connection: AsyncConnection, row: InvoiceRow, now: float) -> None:
        """Bring the outbox up to the lines of an invoice and close it, so that further usage is late.

        Raises InvoiceNotReadyError.
        """
        charged = await metered_segments.fetch_charged(connection, row.subscription, row.period_start)
        if row.kind != changes.PERIOD or not charged:
            return
        reached = await slicing.find_reached(connection)
        if reached is None or reached < charged[-1].end:
            raise InvoiceNotReadyError("usage of the period is not complete")
        meters = self._settings().meters
        account = metered_segments.build_slicing(self._database, self._stripe.is_live, meters)
        targets = await metered_segments.fetch_targets(
            connection, meters, row.period_start - metered_segments.KNOWN_SECONDS, row.customer
        )
        for segment in charged:
            # A change of plan has levelled the segment that it ended, before Stripe changed the prices.
            if segment.counted_until is None:
                await slicing.level_customer(
                    connection, account, targets, row.name, Span(segment.start, segment.end), now
                )
        await self._add_gauges(connection, row, charged[-1], account, now)
        mine = (segments.c.subscription == row.subscription, segments.c.period_start == row.period_start)
        open_ = (*mine, segments.c.told_until.is_(None))
        await connection.execute(sa.update(segments).where(*open_).values(told_until=int(now)))

    async def _add_gauges(
        self, connection: AsyncConnection, row: InvoiceRow, last: SegmentRow, account: slicing.Slicing, now: float
    ) -> None:
        """Send the period's values: one per meter that is not a sum, by the last plan in force."""
        loaded = await subscription_rows.get_by_id(connection, row.subscription)
        period_segments = [other for other in loaded.current.segments if other.span.start < row.period_end]
        segment = period_segments[-1]
        if segment.span.start != last.start:
            return
        terms = quantities.QuantityTerms(self._settings().meters, loaded.current.anchor)
        values = await quantities.fetch_quantities(connection, row.name, period_segments, segment, terms)
        fixed = await outbox_rows.fetch_fixed(connection, Span(last.end - 1, last.end), row.name)
        by_key: dict[str, int] = {}
        for meter in account.gauges.intersection(segment.plan.meters):
            of_meter = {key.value: value for key, value in values.items() if key.meter == meter}
            by_key |= fold_values(meter, segment.plan.meters[meter], of_meter)
        since = last.counted_from or 0
        rows = [
            new_row(account.account, (row.name, key, last.start, 0), last.end, last.start, value, since=since)
            for key, value in by_key.items()
            if value and (row.name, key, last.start) not in fixed
        ]
        await outbox_rows.insert_rows(connection, rows, int(now * 1000))

    async def close_invoice(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Deliver an invoice with written lines: charge or send it.

        Raises InvoiceMismatchError and StripeCallError.
        """
        charged, current = await self._list_charged_segments(row), None
        if charged and not row.replaced_ids:
            row, current = await self._fetch_current(row)  # A person may have deleted the draft.
        if not charged or row.replaced_ids or (current is None and await self._is_left_to_items(row)):
            return await super().close_invoice(row, billing)
        invoice = current or await self.prepare_draft(row, billing)
        async with self._database.reading() as connection:
            lines = await line_rows.fetch_lines(connection, row.id)
            plans = await plan_versions.fetch_plans(connection, {segment.plan_version for segment in charged})
        unit_prices = {
            (version, key): price
            for version, plan in plans.items()
            for key, price in list_unit_prices(plan.in_currency(row.currency)).items()
        }
        metered, items = split_lines(lines, await self._fetch_counted(row, charged), unit_prices)
        is_draft = invoice["status"] == DRAFT
        if is_draft:
            await self._add_items(row, invoice, items)
            await self._check_agreement(row, invoice, [*metered, *items])
            invoice = await self._finalize(row, invoice)
        # Stripe reads quantities when it finalizes; and a person may have finalized the invoice.
        await self._check_agreement(row, invoice, [*metered, *items])
        if invoice["status"] == "open":
            invoice = await self._collect_payment(row, invoice, is_new=is_draft)
        return invoice

    async def void_invoice(self, row: InvoiceRow) -> StripeObject | None:
        """Void an invoice. Stripe's own drafts cannot be deleted, so they are finalized first.

        Raises StripeCallError.
        """
        if row.stripe_id is not None and await self._list_charged_segments(row):
            invoice = await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
            if invoice["status"] == DRAFT and invoice["total"] > CHARGE_MAX:
                return None  # Stripe does not finalize such an amount. The draft stays there, and nothing advances it.
            if invoice["status"] == DRAFT:
                await self._finalize(row, invoice)
        return await super().void_invoice(row)

    async def _list_charged_segments(self, row: InvoiceRow) -> list[SegmentRow]:
        """Return the segments whose usage this invoice charges through Stripe's meters."""
        if row.kind != changes.PERIOD:
            return []
        async with self._database.reading() as connection:
            return await metered_segments.fetch_charged(connection, row.subscription, row.period_start)

    async def _find_draft(self, row: InvoiceRow) -> StripeObject | None:
        """Return Stripe's draft of a period, or None."""
        subscription = await self._fetch_stripe_subscription(row)
        for invoice in await self._stripe.list_all("v1.invoices.list", subscription=subscription):
            if (invoice.get("metadata") or {}).get(INVOICE_METADATA) == row.id:
                return invoice
            # Drafts for other reasons, for example a change within the period, are not the invoice of the period.
            if invoice["billing_reason"] == "subscription_cycle" and invoice["period_end"] == row.period_end:
                return invoice
        return None

    async def _fetch_stripe_subscription(self, row: InvoiceRow) -> str:
        """Return the id of Stripe's subscription for an invoice."""
        statement = sa.select(subscriptions_table.c.stripe_id).where(subscriptions_table.c.id == row.subscription)
        async with self._database.reading() as connection:
            return str((await connection.execute(statement)).scalar_one())

    async def _is_left_to_items(self, row: InvoiceRow) -> bool:
        """Return whether all lines are items, because Stripe drafts no invoice and a person has accepted that.

        Stripe drafts none if a person ended its subscription there. Raises InvoiceMismatchError if no one has accepted
        it yet: an invoice made at that end may already contain usage counted by Stripe.
        """
        subscription = await self._fetch_stripe_subscription(row)
        stripe_subscription = await self._stripe.call("v1.subscriptions.retrieve", subscription)
        if stripe_subscription["status"] != CANCELED or await self._find_draft(row) is not None:
            return False
        if row.accepted_why is None:
            raise InvoiceMismatchError(ENDED_BY_HAND)
        period = (segments.c.subscription == row.subscription, segments.c.period_start == row.period_start)
        async with self._database.writing() as connection:
            values = {"collection": "invoice_items", "told_until": int(time.time())}
            await connection.execute(sa.update(segments).where(*period).values(**values))
        return True

    async def _alert_missing_draft(self, row: InvoiceRow) -> None:
        """Raise an alert if the draft is missing 45 minutes after the period."""
        if row.failures < DRAFTED_TRIES:
            return
        alert = Alert(
            key=f"billing-draft-missing-{row.id}",
            kind=AlertKind.INVOICE_DRAFT_MISSING,
            title=f"Stripe has no draft for {row.name} and the period {row.period}: look at its subscription there",
            details={"invoice": row.id, "of": row.name, "period": row.period},
            at=time.time(),
        )
        async with self._database.writing() as connection:
            await raise_once(connection, alert)

    async def _fetch_counted(self, row: InvoiceRow, charged: Sequence[SegmentRow]) -> Mapping[tuple[int, str], int]:
        """Return the quantity that Stripe has counted of each segment and meter, once it is certain.

        Raises InvoiceNotReadyError, and InvoiceMismatchError if it is long overdue, unless a person has accepted the
        difference.
        """
        async with self._database.reading() as connection:
            is_waiting = await metered_segments.is_under_way(
                connection, row.name, [segment.start for segment in charged]
            )
            stripe_ids = await metered_segments.fetch_stripe_ids(connection, [row.name])
        why = "usage is on its way to Stripe"
        rows: list[Comparison] = []
        if not is_waiting:
            # Other customers' invoices are closed at the same time.
            await self._events.learn_names({**self._events.customers, **stripe_ids})
            counted: dict[tuple[int, str], int] = {}
            for segment in charged:
                try:
                    sums = await metered_segments.verify_sums(
                        self._database, self._events, row.name, segment, time.time()
                    )
                except MeterEventsUnavailableError as error:
                    raise InvoiceNotReadyError(str(error)) from None
                except metered_segments.UsageMismatchError as mismatch_error:
                    if row.accepted_why is None:
                        why, rows = str(mismatch_error), mismatch_error.rows
                        break
                    sums = mismatch_error.accepted  # Stripe's lines charge the quantities that Stripe has counted.
                counted |= {(segment.start, meter): quantity for meter, quantity in sums.items()}
            else:
                return counted
        if row.failures >= SETTLED_TRIES:
            raise InvoiceMismatchError(why, [row._replace(meter=row.meter + UNITS_SUFFIX) for row in rows])
        raise InvoiceNotReadyError(why)

    async def _check_agreement(self, row: InvoiceRow, invoice: StripeObject, lines: Sequence[RatedLine]) -> None:
        """Compare Stripe's lines with the rater's, without zero lines, as Stripe has different ones."""
        if row.accepted_why is None:
            invoice = await self._stripe.call("v1.invoices.retrieve", invoice["id"])
            items = await self._stripe.list_all("v1.invoices.line_items.list", invoice["id"])
            check_agreement(
                invoice, [item for item in items if item["amount"]], [line for line in lines if line.amount], row.name
            )
