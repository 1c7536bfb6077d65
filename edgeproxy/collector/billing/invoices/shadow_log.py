"""The shadow log: what the invoice of each period comes to by one rating of all usage, charged or not, beside what was
charged. Amounts are cents without tax.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import moment
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import insert_new
from edgeproxy.collector.database.delivery_tables import rated
from edgeproxy.collector.database.schema import customers

columns = rated.c
DIFFERS = columns.shadow != columns.real


class Standing(NamedTuple):
    """Invoices that were held against what shadow rated."""

    compared: int
    different: int


async def note(connection: AsyncConnection, invoice: str, cents: int, now: float) -> None:
    """Note what an invoice comes to."""
    row = {"invoice": invoice, "at": int(now * 1000), "shadow": cents}
    await connection.execute(insert_new(connection, rated, "invoice").values(row))


async def charged(connection: AsyncConnection, invoice: str, cents: int, now: float) -> None:
    """Note what was charged by an invoice of a period; one of something else is passed by."""
    done = sa.update(rated).where(columns.invoice == invoice)
    await connection.execute(done.values(real=cents, charged_at=int(now * 1000)))


async def standing(connection: AsyncConnection, since: float) -> Standing:
    """Return how many invoices were charged since a Unix second, and how many of them by another amount."""
    different = sa.func.coalesce(sa.func.sum(sa.case((DIFFERS, 1), else_=0)), 0)
    wanted = sa.select(sa.func.count(), different).where(columns.charged_at >= int(since * 1000))
    return Standing(*map(int, (await connection.execute(wanted)).one()))


async def report(connection: AsyncConnection, period: str | None, limit: int) -> dict[str, Any]:
    """Tell of the invoices of a period, such as 2027-01-01, or of all: those that differ first, then the largest."""
    joined = rated.join(invoices, invoices.c.id == columns.invoice).join(
        customers, customers.c.id == invoices.c.customer
    )
    of = sa.true() if period is None else invoices.c.period == period
    sums = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(columns.shadow), 0),
        sa.func.count(columns.real),
        sa.func.coalesce(sa.func.sum(sa.case((columns.real.is_not(None), columns.shadow))), 0),
        sa.func.coalesce(sa.func.sum(columns.real), 0),
        sa.func.coalesce(sa.func.sum(sa.case((DIFFERS, 1), else_=0)), 0),
    )
    whole = (await connection.execute(sums.select_from(joined).where(of))).one()
    names = ("rated", "shadow", "charged", "shadow_of_charged", "real", "different")
    rows = sa.select(rated, customers.c.name, invoices.c.period, invoices.c.state).select_from(joined).where(of)
    first = sa.case((DIFFERS, 0), else_=1)
    found = await connection.execute(rows.order_by(first, columns.shadow.desc(), columns.invoice).limit(limit))
    return {
        **dict(zip(names, map(int, whole), strict=True)),
        "invoices": [
            {
                "invoice": row.invoice,
                "customer": row.name,
                "period": row.period,
                "state": row.state,
                "shadow": row.shadow,
                "real": row.real,
                "at": moment(row.at),
            }
            for row in found
        ],
    }
