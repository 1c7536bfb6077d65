"""The shadow log: each period invoice's total by a single rating of all usage, next to the charged total.

It is recorded whether the customer is charged or not. Amounts are in the invoice currency's smallest unit, for example
cents, without tax.
"""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.invoices import HAS_CURRENCY
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.delivery_tables import rated
from edgeproxy.collector.database.schema import customers

columns = rated.c
DIFFERS = columns.shadow != columns.real


class ShadowComparison(NamedTuple):
    """The number of charged invoices, and how many of them differ from the shadow log."""

    compared: int
    different: int


async def record_shadow(connection: AsyncConnection, invoice: str, cents: int, now: float) -> None:
    """Record the total of an invoice by a single rating."""
    row = {"invoice": invoice, "at": int(now * 1000), "shadow": cents}
    await connection.execute(build_insert_new(connection, rated, "invoice").values(row))


async def record_charged(connection: AsyncConnection, invoice: str, cents: int, now: float) -> None:
    """Record the charged total of a period's invoice. Other invoices have no row here."""
    statement = sa.update(rated).where(columns.invoice == invoice)
    await connection.execute(statement.values(real=cents, charged_at=int(now * 1000)))


async def fetch_comparison(connection: AsyncConnection, since: float) -> ShadowComparison:
    """Return the number of invoices charged since a Unix second, and of those with a different amount."""
    different = sa.func.coalesce(sa.func.sum(sa.case((DIFFERS, 1), else_=0)), 0)
    statement = sa.select(sa.func.count(), different).where(columns.charged_at >= int(since * 1000))
    return ShadowComparison(*map(int, (await connection.execute(statement)).one()))


async def fetch_report(connection: AsyncConnection, period: str | None, limit: int) -> JsonObject:
    """Return the invoices of a period, for example 2027-01-01, or of all: differing ones first, then the largest."""
    joined = rated.join(invoices, invoices.c.id == columns.invoice).join(
        customers, customers.c.id == invoices.c.customer
    )
    of_period = HAS_CURRENCY if period is None else HAS_CURRENCY & (invoices.c.period == period)
    own = (invoices.c.period, invoices.c.state, invoices.c.currency)
    rows = sa.select(rated, customers.c.name, *own).select_from(joined).where(of_period)
    differing_first = sa.case((DIFFERS, 0), else_=1)
    invoice_rows = await connection.execute(
        rows.order_by(differing_first, columns.shadow.desc(), columns.invoice).limit(limit)
    )
    return {
        "totals": await _sum_by_currency(connection, joined, of_period),
        "invoices": [
            {
                "invoice": row.invoice,
                "customer": row.name,
                "period": row.period,
                "state": row.state,
                "currency": row.currency,
                "shadow": row.shadow,
                "real": row.real,
                "at": format_timestamp(row.at),
            }
            for row in invoice_rows
        ],
    }


async def _sum_by_currency(
    connection: AsyncConnection, joined: sa.FromClause, of_period: sa.ColumnElement[bool]
) -> list[JsonObject]:
    """Return the sums of a period's invoices in each currency."""
    sums = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(columns.shadow), 0),
        sa.func.count(columns.real),
        sa.func.coalesce(sa.func.sum(sa.case((columns.real.is_not(None), columns.shadow))), 0),
        sa.func.coalesce(sa.func.sum(columns.real), 0),
        sa.func.coalesce(sa.func.sum(sa.case((DIFFERS, 1), else_=0)), 0),
    )
    by_currency = sums.add_columns(invoices.c.currency).select_from(joined).where(of_period)
    by_currency = by_currency.group_by(invoices.c.currency).order_by(invoices.c.currency)
    names = ("rated", "shadow", "charged", "shadow_of_charged", "real", "different")
    return [
        {"currency": code, **dict(zip(names, map(int, figures), strict=True))}
        for *figures, code in await connection.execute(by_currency)
    ]
