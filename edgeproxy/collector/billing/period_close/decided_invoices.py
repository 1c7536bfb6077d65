"""People's decisions about invoices, carried out at Stripe: voided, settled, written off."""

from edgeproxy.collector.alerts.alert import raise_once
from edgeproxy.collector.billing.invoices import invoices, line_rows, stripe_reports
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.invoice_tries import InvoiceTries, is_unchanged
from edgeproxy.collector.billing.period_close.line_writing import LineWriting
from edgeproxy.collector.billing.rating.rater import sum_amounts
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.database.database import Database


class DecidedInvoices:
    """Carries out decisions about invoices at Stripe."""

    def __init__(self, database: Database, collection: Collection, tries: InvoiceTries, writing: LineWriting) -> None:
        self._database = database
        self._collection = collection
        self._tries = tries
        self._writing = writing

    async def deliver(self, now: float) -> bool:
        """Carry out the decisions that are due. Return whether there were any."""
        voiding = await self._tries.fetch_due(invoices.VOIDING, now)
        await self._tries.run_each(voiding, self._void_invoice, now)
        marking = [row for state in invoices.MARKING for row in await self._tries.fetch_due(state, now)]
        await self._tries.run_each(marking, lambda row: self._mark_invoice(row, now), now)
        return bool(voiding or marking)

    async def _void_invoice(self, row: InvoiceRow) -> None:
        async with self._database.reading() as connection:
            is_written = row.kind != PERIOD or await invoices.is_written(connection, row.id)
        if not is_written:
            await self._void_unwritten(row)
            return
        stripe_invoice = await self._collection.void_invoice(row)
        # It was paid at Stripe before the decision reached it. Stripe's state is decisive.
        if stripe_invoice is not None and stripe_invoice["status"] != "void":
            await self._tries.settle_invoice(
                row, invoices.STATES_BY_STRIPE[stripe_invoice["status"]], error="it was settled before"
            )
        else:
            await self._tries.settle_invoice(row, invoices.VOID, error=None)

    async def _void_unwritten(self, row: InvoiceRow) -> None:
        """Void an invoice that was held before it had lines.

        The lines are written now, so that the next invoice does not charge them. An invoice that a person finalized at
        Stripe instead stays there and is not ours.
        """
        values: dict[str, object] = {"error": None, "total": 0}
        stripe_invoice = None if row.stripe_id is None else await self._collection.fetch_invoice(row)
        if stripe_invoice is not None and stripe_reports.is_finalized_by_hand(stripe_invoice):
            values |= {"stripe_id": None, "url": None, "replaced_ids": stripe_reports.add_replaced_id(row)}
        else:
            await self._collection.void_invoice(row)
        async with self._database.writing() as connection:
            if not await is_unchanged(connection, row):
                return
            # Usage that cannot be rated is left out, as no one is charged for it.
            rated = await self._writing.compute_lines(connection, row._replace(accepted_why=row.voided_why))
            await line_rows.insert_lines(connection, row.id, rated.lines, row.currency)
            subtotal = sum_amounts(rated.lines)
            await invoices.transition(connection, row.id, row.state, invoices.VOID, subtotal=subtotal, **values)

    async def _mark_invoice(self, row: InvoiceRow, now: float) -> None:
        stripe_invoice = await self._collection.mark_invoice(row)
        async with self._database.writing() as connection:
            # Stripe shows no payment outside of it, so the invoice was paid there before.
            if row.state == invoices.SETTLING and not stripe_invoice.get("amount_paid_off_stripe"):
                await raise_once(connection, stripe_reports.build_paid_twice_alert(row, now))
            await stripe_reports.apply_stripe_invoice(connection, stripe_invoice)
