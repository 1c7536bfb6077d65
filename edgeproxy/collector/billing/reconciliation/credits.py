"""Credit entries are held against balances (reconciliation E)."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.mismatch import Drift, Level, Row
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers

NAME = "credits"
"""What stands for a meter."""
JOURNAL = "journal"


async def with_balances(database: Database, now: float) -> tuple[Drift, Level]:
    """Hold what each customer's entries come to against the balance, and the sum of the journal against 0.

    All of the journal is read: of one moment, and nobody who writes waits for it.
    """
    async with database.reading(whole=True) as connection:
        rows = await _held(connection, now)
    async with database.writing() as connection:
        return await discrepancies.keep(connection, "E", Span(int(now), int(now)), rows, now)


async def _held(connection: AsyncConnection, now: float) -> list[Row]:
    apart = set(await journal.differences(connection))
    column = credit_balances.c
    joined = sa.select(customers.c.name, column.customer, column.balance).join_from(
        credit_balances, customers, customers.c.id == column.customer
    )
    rows = []
    for name, customer, balance in (await connection.execute(joined)).all():
        booked = await journal.balance(connection, customer, int(now * 1000)) if customer in apart else balance
        rows.append(Row(name, NAME, booked, balance))
    if JOURNAL in apart:
        total = (await connection.execute(sa.select(sa.func.sum(credit_entries.c.amount)))).scalar_one()
        rows.append(Row("", JOURNAL, 0, int(total)))
    return rows
