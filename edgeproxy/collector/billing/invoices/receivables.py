"""Receivables: open invoices, summed by currency."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.invoices import HAS_CURRENCY, OPEN
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.schema import DAY, customers


class Receivable(TypedDict):
    """The open invoices in a currency with an unpaid amount. Amounts are in its smallest unit."""

    currency: str
    """The currency (ISO 4217), in lower case."""
    invoices: int
    """The number of open invoices."""
    amount_due: int
    """The sum still to be paid on them."""
    due: int
    """The part of it whose due date has passed, or that has none."""
    next_due_at: str | None
    """The earliest due date of the rest."""
    overdue_invoices: int
    """The number of invoices that were due a day ago or earlier."""
    overdue: int
    """The amount due of the overdue invoices."""
    oldest_due_at: str | None
    """The due date of the invoice that is overdue for longest."""


class ReceivableList(TypedDict):
    """The sums that customers owe, or one of them, by currency."""

    receivables: list[Receivable]
    """The sums for each currency that has open invoices."""


async def sum_receivables(connection: AsyncConnection, now: float, customer: str | None = None) -> list[Receivable]:
    """Sum the open invoices of all customers, or of the one with this id, as of the Unix second `now`."""
    columns = invoices.c
    is_overdue, is_later = columns.due_at <= int(now) - DAY, sa.func.coalesce(columns.due_at, 0) > int(now)
    conditions = [] if customer is None else [columns.customer == customer]
    statement = (
        sa.select(
            columns.currency,
            sa.func.count(),
            sa.cast(sa.func.sum(columns.amount_due), sa.BigInteger),
            sa.cast(sa.func.coalesce(sa.func.sum(columns.amount_due).filter(~is_later), 0), sa.BigInteger),
            sa.func.min(columns.due_at).filter(is_later),
            sa.func.count().filter(is_overdue),
            sa.cast(sa.func.coalesce(sa.func.sum(columns.amount_due).filter(is_overdue), 0), sa.BigInteger),
            sa.func.min(columns.due_at).filter(is_overdue),
        )
        .where(columns.state == OPEN, columns.amount_due > 0, HAS_CURRENCY, *conditions)
        .group_by(columns.currency)
        .order_by(columns.currency)
    )
    return [
        {
            "currency": currency,
            "invoices": count,
            "amount_due": amount_due,
            "due": due,
            "next_due_at": None if next_due is None else format_timestamp(next_due * 1000),
            "overdue_invoices": overdue_count,
            "overdue": overdue,
            "oldest_due_at": None if oldest is None else format_timestamp(oldest * 1000),
        }
        for currency, count, amount_due, due, next_due, overdue_count, overdue, oldest in (
            await connection.execute(statement)
        )
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
