"""Owners of rows: the map of personal data tells whose data key encrypts the rows of a table."""

from collections.abc import Collection
from functools import cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata

DATABASE = ""
"""The owner of rows without a customer. Its data key belongs to the database, and no erasure destroys it."""
NAMES_MAX = 500
"""Owners per query."""


def get_owner_column(table: str) -> str | None:
    """Return the column that identifies a row's owner, or None if the map names none."""
    owner = TABLES[table].owner
    return None if owner is None else owner.column


def has_owner_id(table: str) -> bool:
    """Return True if rows have the id of their customer, or belong to the database."""
    owner = TABLES[table].owner
    return owner is None or owner.by == "id"


@cache
def build_owner_id(table: str) -> sa.ColumnElement[str]:
    """Return the SQL expression for the id of a row's owner, for a statement on this table.

    An erased customer owns no rows. Later rows about it belong to the database and go to operators.
    """
    column = get_owner_column(table)
    return sa.literal(DATABASE) if column is None else _build(table, metadata.tables[table].c[column])


def _build(table: str, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    owner = TABLES[table].owner
    assert owner is not None  # The table has an owner column.
    if owner.by == "id":
        return column
    if owner.by == "name":
        customers = metadata.tables["customers"].alias()
        own = sa.select(customers.c.id).where(customers.c.name == column, customers.c.erased_at.is_(None))
        return own.correlate_except(customers).scalar_subquery()
    parent = metadata.tables[owner.by].alias()
    of_parent = _build(owner.by, parent.c[str(get_owner_column(owner.by))])
    return sa.select(of_parent).where(parent.c[owner.key] == column).correlate_except(parent).scalar_subquery()


async def fetch_owner_ids(connection: AsyncConnection, table: str, values: Collection[object]) -> dict[object, str]:
    """Return the ids of owners by the values of the owner column. Rows of the database are left out."""
    owner = TABLES[table].owner
    if owner is None:
        return {}
    if owner.by == "id":
        return {value: str(value) for value in values if value is not None}
    ids: dict[object, str] = {}
    parent, key = ("customers", "name") if owner.by == "name" else (owner.by, owner.key)
    column = metadata.tables[parent].c[key]
    owner_id = build_owner_id(parent)
    ordered = sorted({value for value in values if value is not None}, key=str)
    for at in range(0, len(ordered), NAMES_MAX):
        statement = sa.select(column, owner_id).where(column.in_(ordered[at : at + NAMES_MAX]))
        if owner.by == "name":
            statement = statement.where(metadata.tables["customers"].c.erased_at.is_(None))
        ids |= {row[0]: row[1] for row in await connection.execute(statement) if row[1] is not None}
    return ids
