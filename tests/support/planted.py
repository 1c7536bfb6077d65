"""Rows of customers in every table that can have them, with a unique marker in each text column."""

from collections.abc import Iterator

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.encryption.keyring import find_keyring
from edgeproxy.collector.encryption.rows import seal_rows

WITHOUT = frozenset({"ledger"})
"""Tables without text columns whose rows need a partition."""
NAMED = frozenset({"plan_versions", "encryption_keys"})
"""Tables without an owner that others refer to."""
NUMBERS = {"acme": 7001, "bolt": 7002}
"""The customers, and the integers of their rows, which no sequence comes to."""


def marker(table: str, column: str, customer: str) -> str:
    """Return the text that is planted in a column."""
    return f"planted.{table}.{column}.{customer}"


def find_value(table: str, column: str, customer: str) -> object:
    """Return the value of a column of the customer's row; it is equal in every row that refers to it."""
    owner, of = TABLES[table].owner, metadata.tables[table].c[column]
    if owner is not None and owner.column == column and owner.by not in ("id", "name"):
        return find_value(owner.by, owner.key, customer)
    if owner is not None and owner.column == column and table != "customers":
        return find_value("customers", owner.by, customer)
    for key in of.foreign_keys:
        return find_value(key.column.table.name, key.column.name, customer)
    text = {
        ("customers", "name"): customer,
        ("customers", "settings"): orjson.dumps({"tier": "basic", "message": marker(table, column, customer)}).decode(),
        ("customers", "metadata"): orjson.dumps({"note": marker(table, column, customer)}).decode(),
    }.get((table, column), marker(table, column, customer))
    if isinstance(of.type, sa.Text | BookText):
        return text
    return text.encode() if isinstance(of.type, sa.LargeBinary) else NUMBERS[customer]


def list_planted() -> Iterator[sa.Table]:
    """List the tables with planted rows, parents first."""
    for table in metadata.sorted_tables:
        if table.name in NAMED or (TABLES[table.name].owner is not None and table.name not in WITHOUT):
            yield table


def count_parents(table: str) -> int:
    """Count the tables between a table and the one that has the customer of its rows."""
    owner = TABLES[table].owner
    return 0 if owner is None or owner.by in ("id", "name") else 1 + count_parents(owner.by)


async def plant(connection: AsyncConnection) -> None:
    """Plant a row of each customer in each table, and a dead letter of each; with a keyring they are sealed."""
    keyring = find_keyring(connection)
    for table in sorted(list_planted(), key=lambda table: count_parents(table.name)):
        for customer in NUMBERS:
            row = {column.name: find_value(table.name, column.name, customer) for column in table.columns}
            if table.name == "customers":
                row |= {"deleting_since": None, "erased_at": None}
            rows = [row]
            if table.name in SEALED:
                row |= dict.fromkeys(SEALED[table.name].looked_up.values())
                if keyring is not None:
                    rows = await seal_rows(connection, table.name, rows)
            if table.name == "data_keys" and keyring is not None:  # Each has a real one.
                continue
            await connection.execute(sa.insert(table), rows)
    letters = metadata.tables["dead_letters"]
    for customer in NUMBERS:
        for kind, field in (("own", "customer"), ("cloud", "subject")):
            event = orjson.dumps({field: customer, "id": marker("dead_letters", kind, customer)}).decode()
            row = {"id": f"{kind}-{customer}", "received": 1, "token": "svc", "error": "late", "event": event}
            await connection.execute(sa.insert(letters), [row])
