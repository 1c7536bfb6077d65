"""The lookup of a customer that a person names by name, pseudonym, id or external id.

Programs name customers by name, pseudonym or id (`customers.find_row`). These are unique. A person may also write an
external id, an id from another system. An external id may equal the name of another customer. A command reports this
as an error.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.customer_rows import fetch_stored_rows
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.encryption.rows import match_value


class CustomerRefError(Exception):
    """No customer has this name or id, or several customers have it. The message is a sentence for the person."""


def match_ref(connection: AsyncConnection, ref: str) -> sa.ColumnElement[bool]:
    """Return the SQL condition that `ref` names a customer."""
    if not ref.isprintable():  # Both databases reject a query with a NUL or a lone surrogate.
        return sa.false()
    is_named = sa.or_(*(customers.c[name] == ref for name in ("id", "name", "display_name")))
    return is_named | match_value(connection, customers.name, "external_id", ref)


async def match_customers(connection: AsyncConnection, ref: str, *, lock: bool = False) -> list[CustomerRow]:
    """Return the stored rows, not decrypted, of all customers that `ref` names, oldest first. `lock` locks the rows."""
    statement = sa.select(customers).where(match_ref(connection, ref)).order_by(customers.c.created_at)
    return await fetch_stored_rows(connection, lock_rows(statement) if lock else statement)


async def resolve_customer(connection: AsyncConnection, ref: str, *, lock: bool = False) -> CustomerRow:
    """Return the stored row, not decrypted, of the one customer that `ref` names. Raises CustomerRefError."""
    rows = await match_customers(connection, ref, lock=lock)
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise CustomerRefError(f"there is no customer {ref}")
    ids = " and ".join(row.id for row in rows)
    raise CustomerRefError(f"{ref} is the name of one customer and the external id of another: use an id, {ids}")
