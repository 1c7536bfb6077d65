"""The rows of customers in each table, by the map of personal data. Pure."""

from collections.abc import Collection

import sqlalchemy as sa

from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata


def select_own(table: str, ids: Collection[str], names: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a row of a table belongs to one of these customers.

    Raises ValueError without an owner.
    """
    owner = TABLES[table].owner
    if owner is None:
        raise ValueError(f"rows of {table} are not of one customer")
    column = metadata.tables[table].c[owner.column]
    values = {"id": ids, "name": names}
    if owner.by in values:
        return column.in_(values[owner.by])
    parent = metadata.tables[owner.by]
    return column.in_(sa.select(parent.c[owner.key]).where(select_own(owner.by, ids, names)))
