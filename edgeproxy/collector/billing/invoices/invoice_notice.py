"""The notice of an issued invoice for the customer's payers."""

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.notices import raise_notice
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.config.collector.currency_units import to_decimal


def build_notice(row: InvoiceRow) -> Alert | None:
    """Return the notice of an issued invoice, or None if its total is zero."""
    if not row.total:
        return None
    is_due = row.state == "open" and row.amount_due > 0
    details = {
        "invoice": row.id,
        "number": row.number or row.id,
        "amount": f"{to_decimal(row.total, row.currency)} {row.currency.upper()}",
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


async def notify_payers(connection: AsyncConnection, row: InvoiceRow) -> None:
    """Notify a customer's payers of an issued invoice, in the current transaction."""
    if (notice := build_notice(row)) is not None:
        await raise_notice(connection, notice)
