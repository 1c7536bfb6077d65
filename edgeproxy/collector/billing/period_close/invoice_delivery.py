"""The delivery of invoices to Stripe: each of its jobs in its order, and the closing of invoices.

The jobs are the drafts (draft_preparation.py), their lines (line_writing.py), the closing of invoices, people's
decisions (decided_invoices.py) and credit notes (credit_note_delivery.py). Each effect begins with a row, so that the
next run continues after a crash. An invoice or a credit note that fails is postponed or held, and the others go on
(invoice_tries.py).
"""

from collections.abc import Callable

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices import dunning, invoices, shadow_log, stripe_reports
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.collection.invoice_items import InvoiceMismatchError, check_chargeable
from edgeproxy.collector.billing.period_close.collection.meters import MeteredInvoices
from edgeproxy.collector.billing.period_close.credit_note_delivery import CreditNoteDelivery
from edgeproxy.collector.billing.period_close.decided_invoices import DecidedInvoices
from edgeproxy.collector.billing.period_close.draft_preparation import DraftPreparation
from edgeproxy.collector.billing.period_close.invoice_tries import InvoiceTries, is_unchanged
from edgeproxy.collector.billing.period_close.line_writing import LineWriting
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings


class InvoiceDelivery:
    """Delivers invoices and credit notes. `settings` returns the current configuration."""

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._collection: Collection = MeteredInvoices(database, stripe, settings)
        self._tries = InvoiceTries(database, settings)
        shared = database, self._collection, self._tries
        self._drafts = DraftPreparation(*shared)
        self._writing = LineWriting(*shared, settings)
        self._decided = DecidedInvoices(*shared, self._writing)
        self._notes = CreditNoteDelivery(*shared)

    async def step(self, now: float, billing: Billing) -> bool:
        """Do the work due at this Unix second. Return whether there was any."""
        async with self._database.reading() as connection:
            charging_state = await charging.fetch_charging(connection, billing)
        if not self._tries.may_call(now):
            return False
        busy = await self._drafts.prepare_drafts(now, billing, charging_state)
        # Drafts at Stripe charge no customer, so they are prepared even while charging is stopped.
        if not charging_state.is_on:
            return busy
        busy |= await self._writing.write_due_lines(now)
        busy |= await self._close_due(now, billing, charging_state)
        busy |= await self._decided.deliver(now)
        await self._notes.deliver(now)
        return busy

    async def _close_due(self, now: float, billing: Billing, charging_state: Charging) -> bool:
        """Deliver invoices with lines to Stripe."""
        closing = await self._tries.fetch_due(invoices.CLOSING, now)
        charged = []
        for row in closing:
            if not charging_state.bills(row.name):
                await self._tries.settle_invoice(row, invoices.WAIVED, held_why=f"not charged: mode {billing.mode}")
            elif row.stripe_id is None and not row.total and not await self._collection.is_drafted_by_stripe(row):
                await self._tries.settle_invoice(row, invoices.PAID)  # Nothing is due.
            else:
                charged.append(row)
        await self._tries.run_each(charged, lambda row: self._close_invoice(row, billing, now), now)
        return bool(closing)

    async def _close_invoice(self, row: InvoiceRow, billing: Billing, now: float) -> None:
        try:
            check_chargeable(row)
            stripe_invoice = await self._collection.close_invoice(row, billing)
        except InvoiceMismatchError as error:
            async with self._database.writing() as connection:
                if await is_unchanged(connection, row):
                    await self._tries.hold_invoice(connection, row, str(error), now)
                if error.rows:
                    period = Span(row.period_start, row.period_end)
                    await discrepancies.record_reconciliation(connection, "C", period, error.rows, now)
            return
        async with self._database.writing() as connection:
            await shadow_log.record_charged(connection, row.id, stripe_invoice["subtotal"], now)
            # The difference of an accepted invoice is known, and a person has decided on it.
            if row.accepted_why is None:
                today = int(now) // DAY * DAY
                comparison = Comparison(row.name, "invoice", row.subtotal, stripe_invoice["subtotal"])
                await discrepancies.add_to_reconciliation(connection, "C", Span(today, today + DAY), [comparison], now)
            if "edgeproxy_refused" in stripe_invoice:
                await dunning.record_try(connection, row, stripe_invoice, now, billing.payment_retries)
            await stripe_reports.apply_stripe_invoice(connection, stripe_invoice, is_delivered=True)
