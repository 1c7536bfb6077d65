"""The notices of an issued invoice and of a payment for the customer's payers."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.notices import raise_notice
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.config.collector.currency_units import format_with_code


def build_notice(row: InvoiceRow) -> Alert | None:
    """Return the notice of an issued invoice, or None if its total is zero."""
    if not row.total:
        return None
    is_due = row.state == "open" and row.amount_due > 0
    details = {
        "invoice": row.id,
        "number": row.number or row.id,
        "amount": format_with_code(row.total, row.currency),
        "due_at": format_timestamp(row.due_at * 1000) if is_due and row.due_at is not None else None,
        "pay": row.url if is_due else None,
        "pdf": row.pdf,
    }
    return Alert(
        key=f"invoice_issued:{row.id}",
        kind=AlertKind.INVOICE_ISSUED,
        customer=row.name,
        title=f"{row.name}: invoice {row.number or row.id} over {details['amount']}",
        at=now_ms() / 1000,
        details={name: value for name, value in details.items() if value is not None},
    )


async def notify_of_payment(connection: AsyncConnection, row: InvoiceRow) -> None:
    """Notify a customer's payers of a paid invoice, in the current transaction."""
    if row.amount_paid <= 0:
        return
    details = {
        "invoice": row.id,
        "number": row.number or row.id,
        "amount": format_with_code(row.amount_paid, row.currency),
        "receipt": row.url,
        "pdf": row.pdf,
    }
    await _raise_payment(connection, row.name, row.id, details)


async def notify_of_purchase(
    connection: AsyncConnection, customer: str, purchase: str, amount: int, millicredits: int, currency: str
) -> None:
    """Notify a customer's payers, by name, of a paid purchase of credits, in the current transaction.

    `amount` is the payment with tax, in the smallest unit of the currency.
    """
    details: dict[str, str | int | None] = {
        "purchase": purchase,
        "amount": format_with_code(amount, currency),
        "credits": millicredits,
    }
    await _raise_payment(connection, customer, purchase, details)


async def _raise_payment(
    connection: AsyncConnection, customer: str, paid: str, details: Mapping[str, str | int | None]
) -> None:
    """Raise the notice of a payment once for an invoice or a purchase."""
    notice = Alert(
        key=f"payment_received:{paid}",
        kind=AlertKind.PAYMENT_RECEIVED,
        customer=customer,
        title=f"{details['amount']} paid by {customer}",
        at=now_ms() / 1000,
        details={name: value for name, value in details.items() if value is not None},
    )
    await raise_notice(connection, notice)


async def notify_payers(connection: AsyncConnection, row: InvoiceRow) -> None:
    """Notify a customer's payers of an issued invoice, in the current transaction."""
    if (notice := build_notice(row)) is not None:
        await raise_notice(connection, notice)
