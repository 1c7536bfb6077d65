"""Encryption and decryption of rows with encrypted columns.

`sealed_columns.py` lists these columns. Without a keyring rows are stored as plain text. With one, plain-text rows are
still readable until `migration.py` has encrypted them.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from operator import itemgetter
from typing import TypeGuard, TypeVar

import orjson
import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import BARE, SEALED, SealedTable
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.database.unreadable_rows import (
    ReadPage,
    find_cursor,
    hash_unreadable,
    parse_rows,
    set_aside,
)
from edgeproxy.collector.encryption.data_keys import (
    CIPHERTEXT,
    Ciphertext,
    DataKeys,
    SealedValueError,
    bind_column,
    bind_row,
    fetch_data_keys,
    find_data_keys,
    get_cached_keys,
    open_ciphertexts,
)
from edgeproxy.collector.encryption.keyring import Keyring, find_keyring
from edgeproxy.collector.encryption.owners import (
    DATABASE,
    build_owner_id,
    fetch_owner_ids,
    get_owner_column,
    has_owner_id,
)

Parsed = TypeVar("Parsed")
Row = Mapping[str, object]
"""Values of a row by column."""
OWNER_ID = "data_key_owner"
"""The column with the owner's id, added to rows that do not have it."""


def open_row(keys: DataKeys, table: str, row: Row, owner: str) -> dict[str, object]:
    """Decrypt a row of this owner (an id). Columns of ciphertexts are removed.

    The row must have the primary key if it has an encrypted column. Raises SealedValueError.
    """
    opened = dict(row)
    open_ciphertexts({DATABASE: keys.find(owner)}, _take_ciphertexts(table, [opened], None))
    return opened


def _take_ciphertexts(table: str, rows: Sequence[dict[str, object]], owner_column: str | None) -> list[Ciphertext]:
    """Take the ciphertexts out of rows. `owner_column` identifies the owner of each row."""
    sealed, taken = SEALED[table], list[Ciphertext]()
    plain = [(column, bind_column(table, column)) for column in sealed.plain]
    looked_up = [(column, stored, bind_column(table, column)) for column, stored in sealed.looked_up.items()]
    key, domains = sealed.key, sealed.domains
    for row in rows:  # The work per value is nearly the whole cost of encryption in a list.
        owner, row_key = DATABASE if owner_column is None else row[owner_column], b""
        if owner is None:
            owner = DATABASE
        for column, bound in plain:
            value = row.get(column)
            if isinstance(value, str) and value.startswith(CIPHERTEXT):
                row_key = row_key or bind_row(row, key)
                taken.append((row, owner, column, value, bound + row_key))
        for column, stored, bound in looked_up:
            if (value := row.pop(stored, None)) is not None:
                row_key = row_key or bind_row(row, key)
                taken.append((row, owner, column, str(value), bound + row_key))
        for column in domains:
            row.pop(column, None)
    return taken


def seal_row(keys: DataKeys, table: str, row: Row, owner: str) -> dict[str, object]:
    """Encrypt the values of a row of this owner (an id). They must include the primary key."""
    sealed, stored = SEALED[table], dict(row)
    for column, address in sealed.domains.items():
        if address in row:
            stored[column] = store_domain(keys.keyring, table, column, str(row[address]))
    if keys.keyring is None:
        for column in sealed.plain:
            if _is_ciphertext(value := row.get(column)):  # A plain text must not look like a ciphertext.
                stored[column] = f" {value}"
        return stored
    for column, ciphertext in sealed.looked_up.items():
        if column in row:
            value = row[column]
            stored[column] = None if value is None else hash_value(keys.keyring, table, column, str(value))
            stored[ciphertext] = None
    for column in (*sealed.plain, *sealed.looked_up):
        if not _is_bare(sealed, row, column):
            row_key = [str(stored[name]) for name in sealed.key]
            text = keys.seal_text(owner, str(row[column]), table, column, *row_key)
            stored[sealed.looked_up.get(column, column)] = text
    return stored


def _is_bare(sealed: SealedTable, row: Row, column: str) -> bool:
    """Return True if a value is missing or stored as plain text."""
    value = row.get(column)
    return value is None or (column in sealed.plain and value in BARE)


def _is_ciphertext(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith(CIPHERTEXT)


def hash_value(keyring: Keyring, table: str, column: str, value: str) -> str:
    """Return the keyed hash for looking up a value."""
    text = orjson.dumps([table, column, value])
    return hmac.new(keyring.keys.look_up, text, sha256).hexdigest()


def store_domain(keyring: Keyring | None, table: str, column: str, address: str) -> str:
    """Return the domain of an address in stored form."""
    domain = address.rpartition("@")[2]
    return domain if keyring is None else hash_value(keyring, table, column, domain)


def match_domain(connection: AsyncConnection, table: str, column: str, domain: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column has this domain, encrypted or as plain text."""
    keyring = find_keyring(connection)
    values = {domain} if keyring is None else {domain, store_domain(keyring, table, column, domain)}
    return metadata.tables[table].c[column].in_(sorted(values))


def match_value(connection: AsyncConnection, table: str, column: str, *values: str) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of these values, encrypted or as plain text."""
    columns, keyring = metadata.tables[table].c, find_keyring(connection)
    if keyring is None:
        return columns[column].in_(values)
    hashes = [hash_value(keyring, table, column, value) for value in values]
    in_clear = columns[column].in_(values) & columns[SEALED[table].looked_up[column]].is_(None)
    return columns[column].in_(hashes) & columns[SEALED[table].looked_up[column]].is_not(None) | in_clear


async def fetch_rows(
    connection: AsyncConnection, table: str, statement: AnySelect, *, strict: bool = False
) -> list[dict[str, object]]:
    """Return the decrypted rows of a statement that selects all columns of a table.

    Rows that cannot be decrypted are set aside (unreadable_rows.py), or raise SealedValueError with `strict`. Raises
    KeysUnavailableError.
    """
    return await open_rows(connection, table, await _fetch_stored_rows(connection, table, statement), strict=strict)


async def fetch_page(
    connection: AsyncConnection,
    table: str,
    statement: AnySelect,
    limit: int,
    parse: Callable[..., Parsed],
    get_key: Callable[..., object] = itemgetter("id"),
) -> ReadPage[Parsed]:
    """Return the first `limit` rows, parsed by `parse`: `fetch_rows` and then `parse_page` of unreadable_rows.py."""
    stored = await _fetch_stored_rows(connection, table, statement.limit(limit + 1))
    cursor = find_cursor(stored, limit, get_key)
    return ReadPage(parse_rows(table, await open_rows(connection, table, stored[:limit]), parse, get_key), cursor)


async def _fetch_stored_rows(connection: AsyncConnection, table: str, statement: AnySelect) -> list[dict[str, object]]:
    """Return the stored rows of a statement, with the owner ids that `open_rows` needs."""
    if find_keyring(connection) is not None and not has_owner_id(table):
        statement = statement.add_columns(_select_owner(table))
    result = await connection.execute(statement)
    names = tuple(result.keys())  # A mapping per row would be slower.
    return [dict(zip(names, row, strict=True)) for row in result]


async def open_rows(
    connection: AsyncConnection, table: str, rows: list[dict[str, object]], *, strict: bool = False
) -> list[dict[str, object]]:
    """Decrypt rows of a table. They must have the primary key and the owner's column.

    Recently unwrapped data keys are used without a query; an erased customer has no rows anyway. A cached key that
    fails is fetched again. Rows that still cannot be decrypted are set aside, or raise SealedValueError with `strict`.
    Raises KeysUnavailableError.
    """
    column, brings_id = get_owner_column(table), bool(rows) and OWNER_ID in rows[0]
    taken = _take_ciphertexts(table, rows, OWNER_ID if brings_id else column)
    if brings_id:
        for row in rows:
            del row[OWNER_ID]
    if not taken:
        return rows
    if (brings_id or has_owner_id(table)) and (cached := get_cached_keys(connection)) is not None:
        with suppress(SealedValueError):
            open_ciphertexts(cached, taken)
            return rows
    values = {owner for _, owner, *_ in taken}
    if brings_id:
        owners: Mapping[object, str] = {value: str(value) for value in values}
    else:
        owners = await fetch_owner_ids(connection, table, values - {DATABASE})
    ids = {value: owners.get(value, DATABASE) for value in values}
    keys = await find_data_keys(connection, set(ids.values()))
    try:
        open_ciphertexts({value: keys.find(id_) for value, id_ in ids.items()}, taken)
    except SealedValueError:
        keys = await fetch_data_keys(connection, set(ids.values()))
        ciphers: dict[object, AESGCM | None] = {value: keys.find(id_) for value, id_ in ids.items()}
        if strict:
            open_ciphertexts(ciphers, taken)
        else:
            return _open_readable(table, rows, ciphers, taken)
    return rows


def _open_readable(
    table: str,
    rows: list[dict[str, object]],
    ciphers: Mapping[object, AESGCM | None],
    taken: Sequence[Ciphertext],
) -> list[dict[str, object]]:
    """Return the rows that can be decrypted. The others are set aside."""
    unreadable: set[int] = set()
    for ciphertext in taken:
        row, _, _, value, _ = ciphertext
        try:
            open_ciphertexts(ciphers, [ciphertext])
        except SealedValueError as error:
            unreadable.add(id(row))
            # A key column that is decrypted already would reveal its value.
            key = [str(row[name]) for name in SEALED[table].key if name not in SEALED[table].looked_up]
            set_aside(table, ",".join(key) or hash_unreadable(value), error)
    return [row for row in rows if id(row) not in unreadable]


@cache
def _select_owner(table: str) -> sa.ColumnElement[str]:
    return build_owner_id(table).label(OWNER_ID)


async def seal_rows(connection: AsyncConnection, table: str, rows: Sequence[Row]) -> list[dict[str, object]]:
    """Encrypt values of rows. An owner without a data key gets one.

    They must have the primary key and the owner's column. Raises KeysUnavailableError.
    """
    sealed, column = SEALED[table], get_owner_column(table)
    keyring, names = find_keyring(connection), (*sealed.plain, *sealed.looked_up)
    filled = [not all(_is_bare(sealed, row, name) for name in names) for row in rows]
    owners = [DATABASE] * len(rows)
    if keyring is not None and column is not None and any(filled):
        values = [row[column] for row in rows]
        ids = await fetch_owner_ids(
            connection, table, {value for value, one in zip(values, filled, strict=True) if one}
        )
        owners = [ids.get(value, DATABASE) for value in values]
    needed = {owner for owner, one in zip(owners, filled, strict=True) if one}
    keys = await fetch_data_keys(connection, needed, create=True)
    return [seal_row(keys, table, row, owner) for row, owner in zip(rows, owners, strict=True)]
