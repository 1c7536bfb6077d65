"""Rows with encrypted columns, as they are stored and as they are meant: sealed and opened.

Which columns these are is in `sealed_columns.py`. Without a keyring rows are stored as they are. With one, rows that
are still in the clear are read all the same, until `migration.py` has sealed them.
"""

import hmac
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import TypeGuard

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.encryption_tables import data_keys
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import BARE, SEALED, SealedTable
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.encryption.data_keys import (
    CIPHERTEXT,
    DataKeys,
    WrappedKey,
    fetch_data_keys,
    unwrap_data_keys,
)
from edgeproxy.collector.encryption.keyring import Keyring, find_keyring

Row = Mapping[str, object]
"""Values of a row, by column."""
KEY_ID, WRAPPED = "data_key_id", "data_key_wrapped"
"""The columns in which a row brings the data key of its customer."""


def open_row(keys: DataKeys, table: str, row: Row) -> dict[str, object]:
    """Return a row as it is meant, without columns of ciphertexts.

    It has the primary key and the customer's column, where it has an encrypted one. Raises SealedValueError.
    """
    sealed, opened = SEALED[table], dict(row)
    for column in sealed.plain:
        value = row.get(column)
        if _is_ciphertext(value):
            opened[column] = _open(keys, table, sealed, column, row, value)
    for column, ciphertext in sealed.looked_up.items():
        value = opened.pop(ciphertext, None)
        if isinstance(value, str):
            opened[column] = _open(keys, table, sealed, column, row, value)
    for column in sealed.domains:
        opened.pop(column, None)
    return opened


def _open(keys: DataKeys, table: str, sealed: SealedTable, column: str, row: Row, value: str) -> str:
    row_key = [str(row[name]) for name in sealed.key]
    return keys.open_text(str(row[sealed.customer]), value, table, column, *row_key)


def seal_row(keys: DataKeys, table: str, row: Row) -> dict[str, object]:
    """Return values of a row as they are stored; they have the primary key and the customer's column."""
    sealed, stored = SEALED[table], dict(row)
    for column, address in sealed.domains.items():
        if address in row:
            stored[column] = store_domain(keys.keyring, table, column, str(row[address]))
    if keys.keyring is None:
        return stored
    for column, ciphertext in sealed.looked_up.items():
        if column in row:
            value = row[column]
            stored[column] = None if value is None else hash_value(keys.keyring, table, column, str(value))
            stored[ciphertext] = None
    for column in (*sealed.plain, *sealed.looked_up):
        if not _is_bare(sealed, row, column):
            row_key = [str(stored[name]) for name in sealed.key]
            text = keys.seal_text(str(row[sealed.customer]), str(row[column]), table, column, *row_key)
            stored[sealed.looked_up.get(column, column)] = text
    return stored


def _is_bare(sealed: SealedTable, row: Row, column: str) -> bool:
    """Return whether a value, if there is one, is stored as it is."""
    value = row.get(column)
    return value is None or (column in sealed.plain and value in BARE)


def _is_sealed(sealed: SealedTable, row: Row) -> bool:
    """Return whether any value of a row is a ciphertext."""
    return any(_is_ciphertext(row.get(column)) for column in sealed.plain) or any(
        row.get(column) is not None for column in sealed.looked_up.values()
    )


def _is_ciphertext(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith(CIPHERTEXT)


def hash_value(keyring: Keyring, table: str, column: str, value: str) -> str:
    """Return the hash by which a value is looked up."""
    text = orjson.dumps([table, column, value])
    return hmac.new(keyring.keys.look_up, text, sha256).hexdigest()


def store_domain(keyring: Keyring | None, table: str, column: str, address: str) -> str:
    """Return the domain of an address as it is stored."""
    domain = address.rpartition("@")[2]
    return domain if keyring is None else hash_value(keyring, table, column, domain)


def match_domain(connection: AsyncConnection, table: str, column: str, domain: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column has this domain, sealed or still in the clear."""
    keyring = find_keyring(connection)
    values = {domain} if keyring is None else {domain, store_domain(keyring, table, column, domain)}
    return metadata.tables[table].c[column].in_(sorted(values))


def match_value(connection: AsyncConnection, table: str, column: str, *values: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of these values, sealed or still in the clear."""
    columns, keyring = metadata.tables[table].c, find_keyring(connection)
    if keyring is None:
        return columns[column].in_(values)
    hashes = [hash_value(keyring, table, column, value) for value in values]
    in_clear = columns[column].in_(values) & columns[SEALED[table].looked_up[column]].is_(None)
    return columns[column].in_(hashes) & columns[SEALED[table].looked_up[column]].is_not(None) | in_clear


async def fetch_rows(connection: AsyncConnection, table: str, statement: AnySelect) -> list[dict[str, object]]:
    """Return the rows of a table that a statement selects as a whole, as they are meant.

    Raises KeysUnavailableError and SealedValueError.
    """
    keyring = find_keyring(connection)
    if keyring is None:
        keys = DataKeys(None, {})
        return [open_row(keys, table, dict(row._mapping)) for row in await connection.execute(statement)]
    result = await connection.execute(statement.add_columns(*_select_key(table)))
    rows = [dict(row._mapping) for row in result]
    wrapped: dict[str, WrappedKey] = {}
    for row in rows:
        customer, key_id, key = str(row[SEALED[table].customer]), row.pop(KEY_ID), row.pop(WRAPPED)
        if key is not None and _is_sealed(SEALED[table], row):  # Most customers have nothing that is, and need no key.
            wrapped[customer] = customer, key_id, key
    keys = DataKeys(keyring, await unwrap_data_keys(connection, keyring, list(wrapped.values())))
    return [open_row(keys, table, row) for row in rows]


@cache
def _select_key(table: str) -> tuple[sa.ColumnElement[object], ...]:
    """Return the columns that bring the data key of a row's customer: another statement would take longer."""
    own = data_keys.c.customer == metadata.tables[table].c[SEALED[table].customer]
    columns = ((data_keys.c.encryption_key, KEY_ID), (data_keys.c.wrapped, WRAPPED))
    return tuple(sa.select(column).where(own).scalar_subquery().label(name) for column, name in columns)


async def seal_rows(connection: AsyncConnection, table: str, rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return values of rows as they are stored; a customer who has no data key gets one.

    They have the primary key and the customer's column. Raises KeysUnavailableError.
    """
    sealed = SEALED[table]
    columns = (*sealed.plain, *sealed.looked_up)
    customers = {
        str(row[sealed.customer]) for row in rows if not all(_is_bare(sealed, row, column) for column in columns)
    }
    keys = await fetch_data_keys(connection, customers, create=True)
    return [seal_row(keys, table, row) for row in rows]
