"""Finding a customer by what somebody has in hand: how a name begins, an external id, how a key begins."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.customers import to_response
from edgeproxy.collector.accounts.models import CustomerResponse
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.config.key_form import get_key_start

KEY_MARK = "_v1_"
"""What keys have that were made here, and names do not as a rule."""


async def search_customers(
    connection: AsyncConnection, database: Database, text: str, limit: int
) -> list[CustomerResponse]:
    """Tell at most `limit` customers that a text may mean: by an id, a key, an external id, or how a name begins.

    Of a whole key its beginning is looked for, by which people know it.
    """
    matches: dict[str, CustomerResponse] = {}
    conditions = [customers.c.id == text, customers.c.external_id == text]
    if KEY_MARK in text:
        begins = database.beginning(keys.c.start, get_key_start(text))
        owners = sa.select(keys.c.customer).where(begins).order_by(database.by_character(keys.c.start)).limit(limit)
        conditions.append(customers.c.id.in_(owners))
    conditions.append(database.beginning(customers.c.name, text))
    for condition in conditions:
        # In the order of the index: else all that begin so would be read and sorted, be it a million.
        statement = sa.select(customers).where(condition).order_by(database.by_character(customers.c.name)).limit(limit)
        matches |= {row.id: to_response(row) for row in await connection.execute(statement) if row.id not in matches}
    return list(matches.values())[:limit]
