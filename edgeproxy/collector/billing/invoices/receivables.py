"""Receivables: open invoices, summed by currency."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.invoices import HAS_CURRENCY, OPEN
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.schema import DAY, customers


class Receivable(TypedDict):
    """The open invoices in a currency. Amounts are in its smallest unit."""

    currency: str
    """The currency (ISO 4217), in lower case."""
    invoices: int
    """The number of open invoices."""
    amount_due: int
    """The sum still to be paid on them."""
    overdue_invoices: int
    """The number of invoices that were due a day ago or earlier."""
    overdue: int
    """The amount due of the overdue invoices."""
    oldest_due_at: str | None
    """The due date of the invoice that is overdue for longest."""


class ReceivableList(TypedDict):
    """The sums that customers owe, by currency."""

    receivables: list[Receivable]
    """The sums for each currency that has open invoices."""


async def sum_receivables(connection: AsyncConnection, now: float) -> list[Receivable]:
    """Sum the open invoices as of the Unix second `now`."""
    columns = invoices.c
    is_overdue = columns.due_at <= int(now) - DAY
    statement = (
        sa.select(
            columns.currency,
            sa.func.count(),
            sa.cast(sa.func.sum(columns.amount_due), sa.BigInteger),
            sa.func.count().filter(is_overdue),
            sa.cast(sa.func.coalesce(sa.func.sum(columns.amount_due).filter(is_overdue), 0), sa.BigInteger),
            sa.func.min(columns.due_at).filter(is_overdue),
        )
        .where(columns.state == OPEN, HAS_CURRENCY)
        .group_by(columns.currency)
        .order_by(columns.currency)
    )
    return [
        {
            "currency": currency,
            "invoices": count,
            "amount_due": due,
            "overdue_invoices": overdue_count,
            "overdue": overdue,
            "oldest_due_at": None if oldest is None else format_timestamp(oldest * 1000),
        }
        for currency, count, due, overdue_count, overdue, oldest in await connection.execute(statement)
    ]


async def sum_overdue(connection: AsyncConnection, now: float) -> dict[str, int]:
    """Return the amounts due of the invoices that were due a day ago or earlier, by customer name."""
    columns = invoices.c
    statement = (
        sa.select(customers.c.name, sa.cast(sa.func.sum(columns.amount_due), sa.BigInteger))
        .join_from(invoices, customers, customers.c.id == columns.customer)
        .where(columns.state == OPEN, columns.amount_due > 0, columns.due_at <= int(now) - DAY)
        .group_by(customers.c.name)
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}
