"""The interface between the delivery of an invoice and the way to collect it."""

from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices.credit_notes import CreditNote
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.config.collector.billing import Billing


class Collection(Protocol):
    """A way to bring invoices to Stripe: by items or by meters."""

    async def prepare_draft(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Return the draft at Stripe, or create it."""

    async def is_drafted_by_stripe(self, row: InvoiceRow) -> bool:
        """Return whether Stripe drafts an invoice by itself, whatever its total."""

    async def fix_usage(self, connection: AsyncConnection, row: InvoiceRow, now: float) -> None:
        """Prepare the lines of an invoice in the transaction that writes them. Raises InvoiceNotReadyError."""

    async def close_invoice(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Deliver an invoice: charge or send it. Return Stripe's invoice."""

    async def void_invoice(self, row: InvoiceRow) -> StripeObject | None:
        """Void an invoice."""

    async def mark_invoice(self, row: InvoiceRow) -> StripeObject:
        """Mark an invoice as paid elsewhere or as uncollectible, by its state, and return it."""

    async def fetch_invoice(self, row: InvoiceRow) -> StripeObject:
        """Return Stripe's current invoice."""

    async def create_credit_note(self, note: CreditNote, row: InvoiceRow) -> StripeObject:
        """Create a credit note, and return it. Raises NoteRefusedError."""
