"""Encryption of plain-text rows, and key rotation. Both consist of transactions, and a later run continues.

The work of a killed process is kept: encrypted rows are no longer plain text, and rewrapped data keys are no longer
under an older key.
"""

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption_tables import data_keys, encryption_keys
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import BARE, SEALED
from edgeproxy.collector.database.unreadable_rows import parse_rows, skip_unreadable
from edgeproxy.collector.encryption.book_keys import rewrap_book_keys
from edgeproxy.collector.encryption.book_rows import fetch_book_columns, seal_clear_books
from edgeproxy.collector.encryption.data_keys import (
    CIPHERTEXT,
    SealedValueError,
    WrappedKey,
    unwrap_data_key,
    wrap_data_key,
)
from edgeproxy.collector.encryption.keyring import LOOK_UP, Keyring, find_keyring
from edgeproxy.collector.encryption.owners import get_owner_column
from edgeproxy.collector.encryption.rows import Row, fetch_rows, match_value, seal_rows, store_domain

ROWS_MAX = 200
"""Rows encrypted per transaction."""
KEYS_MAX = 1000
"""Data keys rewrapped per transaction."""

Key = tuple[object, ...]
"""The primary key of a row."""


class ColumnStatus(NamedTuple):
    """The numbers of encrypted and of plain-text values in a column."""

    name: str
    sealed: int
    clear: int


def _list_columns(table: str) -> Iterator[tuple[str, sa.ColumnElement[bool], sa.ColumnElement[bool]]]:
    """List the encrypted columns of a table, each with the conditions for encrypted and for plain-text values."""
    columns, sealed = metadata.tables[table].c, SEALED[table]
    for name in sealed.plain:
        is_sealed = columns[name].startswith(CIPHERTEXT)
        yield name, is_sealed, columns[name].not_in(BARE) & sa.not_(is_sealed)
    for name, ciphertext in sealed.looked_up.items():
        yield name, columns[ciphertext].is_not(None), columns[name].is_not(None) & columns[ciphertext].is_(None)


async def fetch_status(connection: AsyncConnection) -> list[ColumnStatus]:
    """Return the status of each encrypted column. It reads all rows of their tables."""
    statuses = []
    for table in SEALED:
        columns = list(_list_columns(table))
        counts = [sa.func.count(sa.case((condition, 1))) for _, *both in columns for condition in both]
        row = (await connection.execute(sa.select(*counts).select_from(metadata.tables[table]))).one()
        for at, (name, *_) in enumerate(columns):
            statuses.append(ColumnStatus(f"{table}.{name}", row[2 * at], row[2 * at + 1]))
    return [*statuses, *(ColumnStatus(*book_column) for book_column in await fetch_book_columns(connection))]


async def fetch_data_key_counts(connection: AsyncConnection) -> dict[int, int]:
    """Return the number of data keys under each wrapping key. The look-up key wraps none and is left out."""
    joined = encryption_keys.outerjoin(data_keys, data_keys.c.encryption_key == encryption_keys.c.id)
    counts = sa.select(encryption_keys.c.id, sa.func.count(data_keys.c.customer)).select_from(joined)
    rows = await connection.execute(counts.where(encryption_keys.c.id > LOOK_UP).group_by(encryption_keys.c.id))
    return {row[0]: row[1] for row in rows}


async def seal_clear_rows(database: Database) -> int:
    """Encrypt all plain-text rows. Return their number."""
    count = await _seal_domains(database) + await seal_clear_books(database)
    for table in SEALED:
        last: Key | None = None
        while True:
            async with database.reading() as connection:  # This read may scan many rows, but does not block writers.
                keys = await _find_clear(connection, table, last)
            if not keys:
                break
            async with database.writing() as connection:
                count += await _seal_some(connection, table, keys)
            last = keys[-1]
    return count


async def _seal_domains(database: Database) -> int:
    """Store the domains of addresses that were encrypted before the domain column existed. Return their number."""
    count = 0
    for table, sealed in SEALED.items():
        for column, address in sealed.domains.items():
            target = metadata.tables[table]
            lacks = target.c[column].is_(None) & target.c[sealed.looked_up[address]].is_not(None)
            while True:
                async with database.reading() as connection:
                    if (await connection.execute(sa.select(target.c[column]).where(lacks).limit(1))).first() is None:
                        break
                async with database.writing() as connection:
                    rows = await fetch_rows(connection, table, sa.select(target).where(lacks).limit(ROWS_MAX))
                    for value in {str(row[address]) for row in rows}:
                        domain = store_domain(find_keyring(connection), table, column, value)
                        own = match_value(connection, table, address, value)
                        await connection.execute(sa.update(target).where(own).values({column: domain}))
                if not rows:  # None of them can be read.
                    break
                count += len(rows)
    return count


def _is_clear(table: str) -> sa.ColumnElement[bool]:
    return sa.or_(*(is_clear for *_, is_clear in _list_columns(table)))


async def _find_clear(connection: AsyncConnection, table: str, last: Key | None) -> list[Key]:
    """Return at most ROWS_MAX primary keys of plain-text rows after `last`, in order."""
    key = [metadata.tables[table].c[name] for name in SEALED[table].key]
    statement = sa.select(*key).where(_is_clear(table))
    if last is not None:
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, last)))
    return [tuple(row) for row in await connection.execute(statement.order_by(*key).limit(ROWS_MAX))]


async def _seal_some(connection: AsyncConnection, table: str, keys: Sequence[Key]) -> int:
    """Encrypt the plain-text rows among these primary keys. Return their number.

    Rows of a customer with an unreadable data key stay plain text, and an alert names the key.
    """
    target, names = metadata.tables[table], SEALED[table].key
    key = [target.c[name] for name in names]
    statement = sa.select(target).where(sa.tuple_(*key).in_(keys), _is_clear(table))
    result = await connection.execute(statement.order_by(*key).with_for_update())
    rows: list[dict[str, object]] = [dict(row._mapping) for row in result]
    known = {*names, *filter(None, (get_owner_column(table),))}
    clear = [{name: row[name] for name in {*known, *_list_clear(table, row)}} for row in rows]
    try:
        sealed: list[dict[str, object] | None] = [*await seal_rows(connection, table, clear)]
    except SealedValueError:
        alone = [await skip_unreadable(seal_rows(connection, table, [row])) for row in clear]
        sealed = [None if one is None else one[0] for one in alone]
    for row, stored in zip(rows, sealed, strict=True):
        if stored is not None:
            own = [target.c[name] == row[name] for name in names]
            await connection.execute(sa.update(target).where(*own).values(**stored))
    return sum(stored is not None for stored in sealed)


def _list_clear(table: str, row: Row) -> Iterator[str]:
    """List the columns of a row that must be encrypted."""
    for name in SEALED[table].plain:
        if not str(row[name]).startswith(CIPHERTEXT):
            yield name
    for name, ciphertext in SEALED[table].looked_up.items():
        if row[ciphertext] is None:
            yield name


async def rotate_keys(database: Database, keyring: Keyring) -> tuple[int, int]:
    """Wrap all data keys with a new key. Return its id, and the number of rewrapped data keys.

    An interrupted rotation continues with the key that it created. Keys that no longer wrap anything are deleted. The
    new key and the look-up key are wrapped by the current master key. A data key that cannot be unwrapped is set aside
    and keeps its wrapping key. Raises KeyServiceError and KeysUnavailableError.
    """
    unreadable: set[str] = set()
    async with database.writing() as connection:
        counts = await fetch_data_key_counts(connection)
        current = max(counts)
        if len(counts) == 1 or not await _has_old(connection, keyring, current, unreadable):
            current += 1
            await keyring.insert_key(connection, current)
        for id_ in (LOOK_UP, current):
            await keyring.rewrap_key(connection, id_)
        await keyring.load(connection)
    count, rewrapped = 0, KEYS_MAX
    while rewrapped:
        async with database.writing() as connection:
            rewrapped = await _rewrap_some(connection, keyring, current, unreadable)
        count += rewrapped
    async with database.writing() as connection:
        # A transaction that was creating a data key at the rotation's begin locks its wrapping key until the commit.
        old = (encryption_keys.c.id > LOOK_UP) & (encryption_keys.c.id < current)
        await connection.execute(sa.select(encryption_keys.c.id).where(old).with_for_update())
        while rewrapped := await _rewrap_some(connection, keyring, current, unreadable):
            count += rewrapped
        await rewrap_book_keys(connection, keyring.keys.ciphers, current)
        is_used = sa.exists().where(data_keys.c.encryption_key == encryption_keys.c.id)
        await connection.execute(sa.delete(encryption_keys).where(old, ~is_used))
    return current, count


async def _has_old(connection: AsyncConnection, keyring: Keyring, current: int, unreadable: set[str]) -> bool:
    """Return True if a rotation to the `current` key was interrupted, rather than left with unreadable keys only."""
    if not await _select_old(connection, current, unreadable):
        return True  # Only the last step is missing.
    while rows := await _select_old(connection, current, unreadable):
        if _unwrap_rows(keyring, rows, unreadable):
            return True
    return False


async def _select_old(connection: AsyncConnection, current: int, without: set[str]) -> Sequence[WrappedKey]:
    is_old = (data_keys.c.encryption_key < current) & data_keys.c.customer.not_in(without)
    rows = await connection.execute(sa.select(data_keys).where(is_old).limit(KEYS_MAX).with_for_update())
    return [(row.customer, row.encryption_key, row.wrapped) for row in rows]


def _unwrap_rows(keyring: Keyring, rows: Sequence[WrappedKey], unreadable: set[str]) -> dict[str, bytes]:
    """Return the data keys of rows by customer. Unreadable ones are set aside and added to `unreadable`."""
    keys = dict(parse_rows(data_keys.name, rows, lambda row: (row[0], unwrap_data_key(keyring, *row)), itemgetter(0)))
    unreadable |= {row[0] for row in rows} - keys.keys()
    return keys


async def _rewrap_some(connection: AsyncConnection, keyring: Keyring, current: int, unreadable: set[str]) -> int:
    """Rewrap some data keys with the current key. Return their number, or 0 if none are left."""
    while rows := await _select_old(connection, current, unreadable):
        keys = _unwrap_rows(keyring, rows, unreadable)
        values = [
            {"own": customer, "encryption_key": current, "wrapped": wrap_data_key(keyring, customer, current, key)}
            for customer, key in keys.items()
        ]
        if values:
            own = data_keys.c.customer == sa.bindparam("own")
            await connection.execute(sa.update(data_keys).where(own), values)
            return len(values)
    return 0
