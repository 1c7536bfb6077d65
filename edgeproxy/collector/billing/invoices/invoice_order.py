"""The sort orders of invoice lists."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.page_order import order_page, parse_sort
from edgeproxy.collector.database.statements import AnyColumn, AnySelect

NEWEST_FIRST = "-created_at"
SORTS: Final[Mapping[str, AnyColumn]] = {
    "created_at": invoices.c.id,
    "due_at": sa.func.coalesce(invoices.c.due_at, 0),
    "total": invoices.c.total,
    "amount_due": invoices.c.amount_due,
}
"""The columns that invoices can be sorted by. Ids grow with time."""
ENDED: Final = frozenset({"paid", "void", "waived", "uncollectible"})
"""The final states of invoices. The number of such invoices grows each month."""


async def order_invoices(connection: AsyncConnection, statement: AnySelect, sort: str, after: str | None) -> AnySelect:
    """Return a statement of invoices in the order of `sort`, such as `-total`, after the id `after`."""
    column, descending = parse_sort(sort)
    return await order_page(connection, statement, invoices.c.id, SORTS[column], after, descending=descending)
