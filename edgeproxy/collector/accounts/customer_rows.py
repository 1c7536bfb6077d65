"""Customer rows in the database: decrypted when read, and encrypted when written."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.encryption import rows

TABLE = customers.name
DISPLAY_NAME: sa.ColumnElement[str] = sa.func.coalesce(customers.c.display_name, customers.c.name)
"""A customer's name in the API. It is indexed. The metadata has the name that a person wrote (shown_names.py)."""


async def fetch_rows(connection: AsyncConnection, statement: AnySelect, *, strict: bool = False) -> list[CustomerRow]:
    """Return the customer rows that a statement selects in full, like `rows.fetch_rows`."""
    opened = await rows.fetch_rows(connection, TABLE, statement, strict=strict)
    return [CustomerRow(**row) for row in opened]  # type: ignore[arg-type]


async def fetch_row(connection: AsyncConnection, statement: AnySelect) -> list[CustomerRow]:
    """Return the row of the one customer that a statement selects, or none. Raises SealedValueError."""
    return await fetch_rows(connection, statement, strict=True)


async def fetch_stored_rows(connection: AsyncConnection, statement: AnySelect) -> list[CustomerRow]:
    """Return the rows that a statement selects in full, as stored.

    This is for erasure and similar steps. They need no decrypted value and must not wait for keys.
    """
    result = await connection.execute(statement)
    return [CustomerRow(*(row._mapping[name] for name in CustomerRow._fields)) for row in result]


async def insert_rows(connection: AsyncConnection, new: Sequence[CustomerRow]) -> None:
    """Insert new customers."""
    await connection.execute(
        sa.insert(customers), await rows.seal_rows(connection, TABLE, [row._asdict() for row in new])
    )


async def update_row(connection: AsyncConnection, before: CustomerRow, columns: dict[str, str | int | None]) -> bool:
    """Write columns of a customer. Return False if the row has changed since."""
    (stored,) = await rows.seal_rows(connection, TABLE, [{"id": before.id, **columns}])
    unchanged = (customers.c.id == before.id) & (customers.c.version == before.version)
    return (await connection.execute(sa.update(customers).where(unchanged).values(**stored))).rowcount == 1
