"""A preview of closing a period, for commands and the API: the invoices of the period, by state."""

from collections import Counter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.unreadable_rows import UNREADABLE_TEXT

DAY = "2027-01-01"
"""A period as a day. A shorter text is a prefix, for example a month."""


class HeldInvoice(TypedDict):
    """An invoice that is held until a person decides."""

    invoice: str
    """The invoice, by id."""
    customer: str
    """The customer, by name."""
    why: str
    """The reason."""


class ClosingPreview(TypedDict):
    """The invoices that closing a period affects."""

    period: str
    """The period from the query."""
    invoices: dict[str, int]
    """The number of invoices by state. Closing closes those in `draft`."""
    held: list[HeldInvoice]
    """The held invoices. Closing does not change them."""


def match_period(period: str) -> sa.ColumnElement[bool]:
    """Return the condition for the invoices of a period: a month or a day."""
    return table.c.period.like(f"{period}%") if len(period) < len(DAY) else table.c.period == period


async def preview_close(connection: AsyncConnection, period: str) -> ClosingPreview:
    """Return the numbers of a period's invoices by state, and its held invoices."""
    rows = await invoices.fetch_invoices(connection, match_period(period))
    held = [row for row in rows if row.state == invoices.HELD]
    return {
        "period": period,
        "invoices": dict(sorted(Counter(row.state for row in rows).items())),
        "held": [{"invoice": str(row.id), "customer": row.name, "why": _format_why(row)} for row in held],
    }


def _format_why(row: InvoiceRow) -> str:
    """Return the reason why an invoice is held. If it is unreadable, the row is still listed."""
    return row.held_why if isinstance(row.held_why, str) else UNREADABLE_TEXT
