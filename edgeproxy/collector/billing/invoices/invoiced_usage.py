"""Usage on a closed invoice of a period, which can no longer be taken back."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices.invoices import IS_WRITTEN
from edgeproxy.collector.database.billing_tables import invoices, segments
from edgeproxy.collector.database.schema import customers


async def find_invoiced(connection: AsyncConnection, uses: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
    """Return the uses on a closed invoice among these; a use is a customer's name and a Unix second."""
    columns, part = invoices.c, segments.c
    until = sa.case((columns.closes_at < columns.period_end, columns.closes_at), else_=columns.period_end)
    # A subscription that ended early has an invoice that closes early, and may continue in the same period.
    is_on_it = (part.start >= columns.period_start) & (part.end <= until)
    statement = (
        sa.select(customers.c.name, part.start, part.end)
        .distinct()
        .join_from(invoices, customers, customers.c.id == columns.customer)
        .join(segments, (part.subscription == columns.subscription) & is_on_it)
        .where(customers.c.name.in_({name for name, _ in uses}), columns.kind.startswith("period"), IS_WRITTEN)
    )
    rows = (await connection.execute(statement)).all() if uses else []
    return {
        (name, second)
        for name, second in uses
        if any(row.name == name and row.start <= second < row.end for row in rows)
    }
