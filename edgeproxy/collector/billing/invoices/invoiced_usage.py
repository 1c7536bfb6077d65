"""Usage on a closed invoice of a period, which can no longer be taken back."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices.invoices import IS_WRITTEN
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.schema import customers


async def find_invoiced(connection: AsyncConnection, uses: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return the uses on a closed invoice among these; a use is a customer's name and a Unix second."""
    columns = invoices.c
    statement = (
        sa.select(customers.c.name, columns.period_start, columns.period_end, columns.closes_at)
        .join_from(invoices, customers, customers.c.id == columns.customer)
        .where(customers.c.name.in_({name for name, _ in uses}), columns.kind.startswith("period"), IS_WRITTEN)
    )
    rows = (await connection.execute(statement)).all() if uses else []
    return {
        (name, second)
        for name, second in uses
        if any(row.name == name and row.period_start <= second < min(row.period_end, row.closes_at) for row in rows)
    }
