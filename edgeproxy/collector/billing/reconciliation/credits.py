"""Reconciliation E: credit entries against balances."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.journal import journal, verification
from edgeproxy.collector.billing.mismatch import Comparison, Drift, Level, name_by_currency
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers

NAME = "credits"
"""The name in place of a meter."""
JOURNAL = "journal"


async def reconcile_balances(database: Database, now: float) -> tuple[Drift, Level]:
    """Compare each customer's entries with the balance, and the sum of the journal with 0.

    Reads the whole journal from one snapshot; writers do not wait.
    """
    async with database.reading(whole=True) as connection:
        rows = await _compare_balances(connection, now)
    async with database.writing() as connection:
        return await discrepancies.record_reconciliation(connection, "E", Span(int(now), int(now)), rows, now)


async def _compare_balances(connection: AsyncConnection, now: float) -> list[Comparison]:
    differing = set(await verification.list_differences(connection))
    columns = credit_balances.c
    joined = sa.select(customers.c.name, columns.customer, columns.balance).join_from(
        credit_balances, customers, customers.c.id == columns.customer
    )
    rows = []
    for name, customer, balance in (await connection.execute(joined)).all():
        booked = (
            await journal.fetch_balance(connection, customer, int(now * 1000)) if customer in differing else balance
        )
        rows.append(Comparison(name, NAME, booked, balance))
    if JOURNAL in differing:
        totals = await verification.sum_journal(connection)
        rows += [Comparison("", name_by_currency(JOURNAL, currency), 0, total) for currency, total in totals.items()]
    return rows
