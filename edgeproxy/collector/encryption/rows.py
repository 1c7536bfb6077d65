"""Rows with encrypted columns, as they are stored and as they are meant: sealed and opened.

Which columns these are is in `sealed_columns.py`. Without a keyring rows are stored as they are. With one, rows that
are still in the clear are read all the same, until `migration.py` has sealed them.
"""

import base64
import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TypeGuard

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.encryption_tables import data_keys, encryption_keys
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import BARE, SEALED, SealedTable
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.encryption.key_services import KEY_BYTES, NONCE_BYTES, KeyServiceError
from edgeproxy.collector.encryption.keyring import Keyring, KeysUnavailableError, find_keyring

CIPHERTEXT = "enc1:"
"""The beginning of a ciphertext; no JSON and no e-mail address begins like that."""
KEYS_MAX = 500
"""Data keys that one statement looks up."""

Row = Mapping[str, object]
"""Values of a row, by column."""


class SealedValueError(Exception):
    """A value cannot be decrypted: its data key is gone, or it was changed or moved by somebody else."""


class DataKeys:
    """The data keys of some customers, and what is sealed and opened by them."""

    def __init__(self, keyring: Keyring | None, ciphers: Mapping[str, AESGCM]) -> None:
        self._keyring = keyring
        self._ciphers = ciphers

    def open_row(self, table: str, row: Row) -> dict[str, object]:
        """Return a row as it is meant, without columns of ciphertexts.

        It has the primary key and the customer's column, where it has an encrypted one. Raises SealedValueError.
        """
        sealed, opened = SEALED[table], dict(row)
        for column in sealed.plain:
            value = row.get(column)
            if _is_ciphertext(value):
                opened[column] = self._open(table, sealed, column, row, value)
        for column, ciphertext in sealed.looked_up.items():
            value = opened.pop(ciphertext, None)
            if isinstance(value, str):
                opened[column] = self._open(table, sealed, column, row, value)
        return opened

    def seal_row(self, table: str, row: Row) -> dict[str, object]:
        """Return values of a row as they are stored; they have the primary key and the customer's column."""
        sealed, stored = SEALED[table], dict(row)
        if self._keyring is None:
            return stored
        for column, ciphertext in sealed.looked_up.items():
            if column in row:
                value = row[column]
                stored[column] = None if value is None else hash_value(self._keyring, table, column, str(value))
                stored[ciphertext] = None
        for column in (*sealed.plain, *sealed.looked_up):
            if not _is_bare(sealed, row, column):
                row_key = [str(stored[name]) for name in sealed.key]
                text = self.seal_text(str(row[sealed.customer]), str(row[column]), table, column, *row_key)
                stored[sealed.looked_up.get(column, column)] = text
        return stored

    def _open(self, table: str, sealed: SealedTable, column: str, row: Row, value: str) -> str:
        row_key = [str(row[name]) for name in sealed.key]
        return self.open_text(str(row[sealed.customer]), value, table, column, *row_key)

    def has(self, customer: str) -> bool:
        """Return whether a customer has a data key."""
        return customer in self._ciphers

    def seal_text(self, customer: str, text: str, table: str, column: str, *row_key: str) -> str:
        """Return the ciphertext of a value of a customer who has a data key, bound to its table, column and row."""
        nonce = os.urandom(NONCE_BYTES)
        closed = self._ciphers[customer].encrypt(nonce, text.encode(), _bind(table, column, row_key))
        return CIPHERTEXT + base64.b64encode(nonce + closed).decode()

    def open_text(self, customer: str, value: str, table: str, column: str, *row_key: str) -> str:
        """Return the value of a ciphertext; raises SealedValueError."""
        if not self.has(customer):
            raise SealedValueError(f"{table}.{column} cannot be decrypted: the data key of its customer is gone")
        try:
            closed = base64.b64decode(value.removeprefix(CIPHERTEXT), validate=True)
            bound = _bind(table, column, row_key)
            return self._ciphers[customer].decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], bound).decode()
        except (InvalidTag, ValueError):
            raise SealedValueError(f"{table}.{column} of a row was changed, or is of another row") from None


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


def _bind(table: str, column: str, row_key: Sequence[str]) -> bytes:
    """Return what a ciphertext is bound to: its table, its column, and the primary key of its row."""
    return orjson.dumps([table, column, *row_key])


def hash_value(keyring: Keyring, table: str, column: str, value: str) -> str:
    """Return the hash by which a value is looked up."""
    text = orjson.dumps([table, column, value])
    return hmac.new(keyring.keys.look_up, text, sha256).hexdigest()


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
    rows: list[dict[str, object]] = [dict(row._mapping) for row in await connection.execute(statement)]
    sealed = SEALED[table]
    # Most customers have nothing that is sealed, and need no key.
    keys = await fetch_data_keys(connection, {str(row[sealed.customer]) for row in rows if _is_sealed(sealed, row)})
    return [keys.open_row(table, row) for row in rows]


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
    return [keys.seal_row(table, row) for row in rows]


async def fetch_data_keys(connection: AsyncConnection, customers: Iterable[str], *, create: bool = False) -> DataKeys:
    """Return the data keys of these customers, by id; with `create`, those who have none get one.

    Raises KeysUnavailableError.
    """
    keyring = find_keyring(connection)
    if keyring is None:
        return DataKeys(None, {})
    ids, ciphers = sorted(customers), dict[str, AESGCM]()
    for at in range(0, len(ids), KEYS_MAX):
        some = ids[at : at + KEYS_MAX]
        ciphers |= await _fetch_some(connection, keyring, some)
        if create and (missing := [one for one in some if one not in ciphers]):
            await _create_data_keys(connection, keyring, missing)
            ciphers |= await _fetch_some(connection, keyring, missing)  # Another collector may have made one meanwhile.
    return DataKeys(keyring, ciphers)


async def _fetch_some(connection: AsyncConnection, keyring: Keyring, customers: Sequence[str]) -> dict[str, AESGCM]:
    rows = (await connection.execute(sa.select(data_keys).where(data_keys.c.customer.in_(customers)))).all()
    if any(row.encryption_key not in keyring.keys.ciphers for row in rows):
        await _reload(connection, keyring)
    return {row.customer: AESGCM(unwrap_data_key(keyring, *row)) for row in rows}


async def _create_data_keys(connection: AsyncConnection, keyring: Keyring, customers: Sequence[str]) -> None:
    async with across_customers(connection):
        current = (await connection.execute(sa.select(sa.func.max(encryption_keys.c.id)))).scalar_one()
    if current not in keyring.keys.ciphers:
        await _reload(connection, keyring)
    rows = [
        {
            "customer": one,
            "encryption_key": current,
            "wrapped": wrap_data_key(keyring, one, current, os.urandom(KEY_BYTES)),
        }
        for one in customers
    ]
    await connection.execute(build_insert_new(connection, data_keys, "customer"), rows)


async def _reload(connection: AsyncConnection, keyring: Keyring) -> None:
    """Unwrap the keys anew, as one has come with a rotation; raises KeysUnavailableError."""
    try:
        await keyring.load(connection)
    except KeyServiceError as error:
        raise KeysUnavailableError(str(error)) from None


def wrap_data_key(keyring: Keyring, customer: str, encryption_key: int, key: bytes) -> bytes:
    """Return the data key of a customer, wrapped by a key of the ring; raises KeysUnavailableError."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + keyring.keys.ciphers[encryption_key].encrypt(nonce, key, _bind_key(customer, encryption_key))


def unwrap_data_key(keyring: Keyring, customer: str, encryption_key: int, wrapped: bytes) -> bytes:
    """Return the data key of a customer; raises KeysUnavailableError and SealedValueError."""
    try:
        cipher = keyring.keys.ciphers[encryption_key]
        return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bind_key(customer, encryption_key))
    except (InvalidTag, KeyError):
        raise SealedValueError(f"the data key of customer {customer} was changed, or is another one's") from None


def _bind_key(customer: str, encryption_key: int) -> bytes:
    return orjson.dumps(["data_keys", customer, encryption_key])
