"""Whose data key seals the rows of a table: found by the map of personal data."""

from collections.abc import Collection
from functools import cache

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata

DATABASE = ""
"""The owner of rows of nobody: its data key is that of the database, which no erasure destroys."""
NAMES_MAX = 500
"""Owners that one statement looks up."""


def get_owner_column(table: str) -> str | None:
    """Return the column that says whose a row is; None where the map names none."""
    owner = TABLES[table].owner
    return None if owner is None else owner.column


def has_owner_id(table: str) -> bool:
    """Return whether rows have the id of their customer, or are of the database in any case."""
    owner = TABLES[table].owner
    return owner is None or owner.by == "id"


@cache
def build_owner_id(table: str) -> sa.ColumnElement[str]:
    """Return the SQL expression of the id of a row's owner, for a statement on this table.

    A customer who is erased owns nothing any more: what comes of it later is told to operators.
    """
    column = get_owner_column(table)
    return sa.literal(DATABASE) if column is None else _build(table, metadata.tables[table].c[column])


def _build(table: str, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    owner = TABLES[table].owner
    assert owner is not None  # As its column is.
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
    """Return the ids of the owners of rows, by what the owner's column has; those of the database are left out."""
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
