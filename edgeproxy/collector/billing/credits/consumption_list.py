"""Consumptions for display, newest first: the usage of an hour paid with credits, each with its id."""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.journal.postings import ConsumptionPart
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.schema import INTEGER


class Consumption(NamedTuple):
    """An hour's usage that credits paid for. Amounts are millicredits."""

    id: str
    number: int
    at: int
    """The Unix millisecond of the booking."""
    hour: int
    """The Unix second at the start of the hour."""
    amount: int
    reversed: int
    """The refunded part."""
    meters: list[ConsumptionPart]


async def list_consumptions(
    connection: AsyncConnection, customer: str, before: int | None, limit: int
) -> list[Consumption]:
    """Return at most `limit` consumptions of a customer, by id, before the one with this number, newest first."""
    column, refunds = credit_transactions.c, credit_transactions.alias()
    is_reversal = (refunds.c.kind == "usage_refund") & (refunds.c.original == column.source)
    given_back = sa.select(sa.func.coalesce(sa.func.sum(refunds.c.amount), 0)).where(is_reversal).scalar_subquery()
    statement = (
        sa.select(column.source, column.seq, column.at, column.slice, -column.amount, sa.cast(given_back, INTEGER))
        .where(column.customer == customer, column.kind == "consumption")
        .order_by(column.seq.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(column.seq < before)
    rows = (await connection.execute(statement)).all()
    meters: dict[int, list[ConsumptionPart]] = {row.seq: [] for row in rows}
    entry = credit_entries.c
    parts = sa.select(entry.seq, entry.meter, entry.model, -entry.amount).order_by(entry.seq, entry.position)
    for seq, *part in await connection.execute(parts.where(entry.seq.in_(meters), entry.account == "revenue")):
        meters[seq].append(ConsumptionPart(*part))
    return [Consumption._make((*row, meters[row.seq])) for row in rows]
