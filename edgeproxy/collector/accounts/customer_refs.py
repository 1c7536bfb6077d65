"""Finding the customer that a person names: by name, pseudonym, id or external id.

Programs name customers by name, pseudonym or id (`customers.find_row`), which no other customer can take. A person may
also write an id from another system. That can be the name of another customer, so that a command has to say so.
"""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.customer_rows import fetch_stored_rows
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.encryption.rows import match_value


class CustomerRefError(Exception):
    """No customer, or more than one, has this name or id: a sentence for the person who wrote it."""


def match_ref(connection: AsyncConnection, ref: str) -> sa.ColumnElement[bool]:
    """Return the condition that `ref` names a customer."""
    if not ref.isprintable():  # Neither database takes a NUL or half a character, even to find nothing.
        return sa.false()
    is_named = sa.or_(*(customers.c[name] == ref for name in ("id", "name", "display_name")))
    return is_named | match_value(connection, customers.name, "external_id", ref)


async def match_customers(connection: AsyncConnection, ref: str, *, lock: bool = False) -> list[CustomerRow]:
    """Return the rows, as they are stored, of all customers that `ref` names, oldest first; locked with `lock`."""
    statement = sa.select(customers).where(match_ref(connection, ref)).order_by(customers.c.created_at)
    return await fetch_stored_rows(connection, lock_rows(statement) if lock else statement)


async def resolve_customer(connection: AsyncConnection, ref: str, *, lock: bool = False) -> CustomerRow:
    """Return the row, as it is stored, of the one customer that `ref` names; raises CustomerRefError."""
    rows = await match_customers(connection, ref, lock=lock)
    if len(rows) == 1:
        return rows[0]
    if not rows:
        raise CustomerRefError(f"there is no customer {ref}")
    ids = " and ".join(row.id for row in rows)
    raise CustomerRefError(f"{ref} is the name of one customer and the external id of another: use an id, {ids}")
