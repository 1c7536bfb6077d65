"""Data keys of customers: fetching, creating, wrapping and unwrapping them, and encryption with them.

A value is encrypted only with a data key that the same transaction has read, so that no value is encrypted for a
customer that another collector has erased. Decryption may use a key that this process has unwrapped before
(`find_data_keys`), for a quarter of the lifetime of its wrapping key. A key that a transaction has created is not
cached, because the transaction may be rolled back.
"""

import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import cache
from typing import cast
from weakref import WeakKeyDictionary

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.encryption_tables import data_keys, encryption_keys
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, set_aside
from edgeproxy.collector.encryption.key_services import KEY_BYTES, NONCE_BYTES, KeyServiceError
from edgeproxy.collector.encryption.keyring import Keyring, KeysUnavailableError, find_keyring
from edgeproxy.collector.encryption.owners import DATABASE

CIPHERTEXT = "enc1:"
"""The beginning of a ciphertext. No JSON and no e-mail address begins like this."""
_START = 3
_NONCE, _SEALED = slice(_START, _START + NONCE_BYTES), slice(_START + NONCE_BYTES, None)
"""Parts of a decoded ciphertext.

Its first three bytes are CIPHERTEXT, decoded as Base64 without the colon. Cutting it off, and building slices for each
value, would take longer.
"""
KEYS_MAX = 500
"""Data keys per query."""

WrappedKey = tuple[str, int, bytes]
"""A row of `data_keys`: the customer's id, the wrapping key's id, and the wrapped data key."""
Ciphertext = tuple[dict[str, object], object, str, str, bytes]
"""A row, its owner, a column, the column's ciphertext, and the data bound to it."""


class SealedValueError(UnreadableRowError):
    """A value cannot be decrypted: its data key is gone, or it was changed or moved by another program."""


class DataKeys:
    """The data keys of some customers, by id. Without a keyring nothing is encrypted."""

    def __init__(self, keyring: Keyring | None, ciphers: Mapping[str, AESGCM]) -> None:
        self.keyring = keyring
        self._ciphers = ciphers

    def has(self, customer: str) -> bool:
        """Return True if a customer has a data key."""
        return customer in self._ciphers

    def get(self, customer: str) -> AESGCM:
        """Return the data key of a customer who has one."""
        return self._ciphers[customer]

    def seal_text(self, customer: str, text: str, table: str, column: str, *row_key: str) -> str:
        """Encrypt a customer's value, bound to its table, column and row.

        Raises SealedValueError if the customer's data key is unreadable.
        """
        if customer not in self._ciphers:
            raise SealedValueError(f"{table}.{column} cannot be encrypted: the data key of its customer is unreadable")
        nonce = os.urandom(NONCE_BYTES)
        closed = self._ciphers[customer].encrypt(nonce, text.encode(), _bind(table, column, row_key))
        return CIPHERTEXT + b2a_base64(nonce + closed, newline=False).decode()

    def find(self, customer: str) -> AESGCM | None:
        """Return the data key of a customer, or None."""
        return self._ciphers.get(customer)

    def open_text(self, customer: str, value: str, table: str, column: str, *row_key: str) -> str:
        """Decrypt a value. Raises SealedValueError."""
        opened: dict[str, object] = {}
        ciphertext = (opened, customer, column, value, _bind(table, column, row_key))
        open_ciphertexts({customer: self.find(customer)}, [ciphertext])
        return str(opened[column])


def open_ciphertexts(ciphers: Mapping[object, AESGCM | None], ciphertexts: Iterable[Ciphertext]) -> None:
    """Decrypt ciphertexts in their rows with the data keys of their owners. Raises SealedValueError."""
    for row, owner, column, value, bound in ciphertexts:  # Inlined: calls would take half as long as AES-GCM.
        if (cipher := ciphers[owner]) is None:
            raise SealedValueError(f"{_name(bound)} cannot be decrypted: the data key of its customer is gone")
        try:
            closed = a2b_base64(value)
            row[column] = cipher.decrypt(closed[_NONCE], closed[_SEALED], bound).decode()
        except (InvalidTag, ValueError):
            raise SealedValueError(f"{_name(bound)} of a row was changed, or is of another row") from None


def _bind(table: str, column: str, row_key: Sequence[str]) -> bytes:
    """Return the data bound to a ciphertext: its table, its column, and the primary key of its row."""
    return orjson.dumps((table, column, *row_key))


@cache
def bind_column(table: str, column: str) -> bytes:
    """Return the bound data shared by all rows of a column. `bind_row` returns the rest."""
    return _bind(table, column, ())[:-1] + b","


def bind_row(row: Mapping[str, object], key: Sequence[str]) -> bytes:
    """Return the bound data shared by all columns of a row with this key."""
    if len(key) == 1:  # Nearly every table has one key column. A comprehension takes twice as long.
        return orjson.dumps(str(row[key[0]])) + b"]"
    return orjson.dumps([str(row[name]) for name in key])[1:]


def _name(bound: bytes) -> str:
    """Return the column that a ciphertext is bound to, for an error."""
    table, column, *_ = orjson.loads(bound)
    return f"{table}.{column}"


# ---- fetching

_read: "WeakKeyDictionary[sa.Connection, dict[str, AESGCM]]" = WeakKeyDictionary()
"""Data keys read over each connection during its current use, by the customer's id."""


_made: "WeakKeyDictionary[sa.Connection, set[str]]" = WeakKeyDictionary()
"""Customers whose data keys were created over each connection during its current use. They may be rolled back."""


def _get_made(connection: AsyncConnection) -> set[str]:
    sync = connection.sync_connection
    assert sync is not None  # An open connection always has one.
    return _made.setdefault(sync, set())


def _get_read_keys(connection: AsyncConnection) -> dict[str, AESGCM]:
    sync = connection.sync_connection
    assert sync is not None  # An open connection always has one.
    return _read.setdefault(sync, {})


def forget_data_keys(connection: AsyncConnection) -> None:
    """Make this connection read data keys again, because some were deleted."""
    _get_read_keys(connection).clear()
    if (keyring := find_keyring(connection)) is not None:
        keyring.data_keys.clear()


def get_cached_keys(connection: AsyncConnection) -> Mapping[object, AESGCM | None] | None:
    """Return recently unwrapped data keys by id. `keys[id]` is None for others.

    Return None if nothing is encrypted, or if the wrapping keys have expired.
    """
    keyring = find_keyring(connection)
    if keyring is None or keyring.find_gap() is not None:
        return None
    return cast(Mapping[object, AESGCM | None], keyring.data_keys)


async def find_data_keys(connection: AsyncConnection, customers: Collection[str]) -> DataKeys:
    """Return the data keys of these customers, by id, for decryption: cached ones, and others from the database.

    A cached key may have been destroyed by another collector since. Raises KeysUnavailableError and SealedValueError.
    """
    keyring = find_keyring(connection)
    if keyring is None or not customers:
        return DataKeys(keyring, {})
    _ = keyring.keys  # It raises an error if the keys have expired.
    cached = keyring.data_keys
    ciphers = {customer: cipher for customer in customers if (cipher := cached[customer]) is not None}
    if missing := [customer for customer in customers if customer not in ciphers]:
        fetched, made = await fetch_data_keys(connection, missing), _get_made(connection)
        for customer in missing:
            if fetched.has(customer):
                ciphers[customer] = fetched.get(customer)
                if customer not in made:
                    cached.admit(customer, ciphers[customer])
    return DataKeys(keyring, ciphers)


async def fetch_data_keys(connection: AsyncConnection, customers: Iterable[str], *, create: bool = False) -> DataKeys:
    """Return the data keys of these customers, by id. With `create`, customers without one get one.

    Raises KeysUnavailableError and SealedValueError.
    """
    keyring = find_keyring(connection)
    if keyring is None:
        return DataKeys(None, {})
    ids, ciphers, read = sorted(customers), dict[str, AESGCM](), _get_read_keys(connection)
    for at in range(0, len(ids), KEYS_MAX):
        some = ids[at : at + KEYS_MAX]
        ciphers |= {id_: read[id_] for id_ in some if id_ in read}
        if unread := [id_ for id_ in some if id_ not in ciphers]:
            ciphers |= await _fetch_some(connection, keyring, unread)
        if create and (missing := [id_ for id_ in some if id_ not in ciphers]):
            await _create_data_keys(connection, keyring, missing)
            ciphers |= await _fetch_some(connection, keyring, missing)  # Another collector may have made one since.
    return DataKeys(keyring, ciphers)


async def _fetch_some(connection: AsyncConnection, keyring: Keyring, customers: Sequence[str]) -> dict[str, AESGCM]:
    async with _with_rights_to(connection, customers):
        rows = (await connection.execute(sa.select(data_keys).where(data_keys.c.customer.in_(customers)))).all()
    return await unwrap_data_keys(
        connection, keyring, [(row.customer, row.encryption_key, row.wrapped) for row in rows]
    )


async def unwrap_data_keys(
    connection: AsyncConnection, keyring: Keyring, rows: Sequence[WrappedKey]
) -> dict[str, AESGCM]:
    """Return the ciphers of data keys that were read over a connection, by the customer's id.

    A data key that cannot be unwrapped is set aside. Raises KeysUnavailableError.
    """
    if any(encryption_key not in keyring.keys.ciphers for _, encryption_key, _ in rows):
        await _reload(connection, keyring)
    read, ciphers = _get_read_keys(connection), dict[str, AESGCM]()
    for customer, encryption_key, wrapped in rows:
        try:
            cipher = read.get(customer) or AESGCM(unwrap_data_key(keyring, customer, encryption_key, wrapped))
        except SealedValueError as error:  # Its own values are unreadable, but not values of other customers.
            set_aside(data_keys.name, customer, error)
            continue
        ciphers[customer] = cipher
        if len(read) < KEYS_MAX:
            read[customer] = cipher
    return ciphers


async def _create_data_keys(connection: AsyncConnection, keyring: Keyring, customers: Sequence[str]) -> None:
    async with across_customers(connection):
        current = (await connection.execute(sa.select(sa.func.max(encryption_keys.c.id)))).scalar_one()
    if current not in keyring.keys.ciphers:
        await _reload(connection, keyring)
    rows = [
        {
            "customer": customer,
            "encryption_key": current,
            "wrapped": wrap_data_key(keyring, customer, current, os.urandom(KEY_BYTES)),
        }
        for customer in customers
    ]
    async with _with_rights_to(connection, customers):
        await connection.execute(build_insert_new(connection, data_keys, "customer"), rows)
    _get_made(connection).update(customers)


def _with_rights_to(connection: AsyncConnection, customers: Sequence[str]) -> AbstractAsyncContextManager[None]:
    """Let a transaction that serves a customer also read the data key of the database."""
    return across_customers(connection) if DATABASE in customers else nullcontext()


async def _reload(connection: AsyncConnection, keyring: Keyring) -> None:
    """Unwrap the keys again after a rotation added one. Raises KeysUnavailableError."""
    try:
        await keyring.load(connection)
    except KeyServiceError as error:
        raise KeysUnavailableError(str(error)) from None


# ---- wrapping


def wrap_data_key(keyring: Keyring, customer: str, encryption_key: int, key: bytes) -> bytes:
    """Wrap the data key of a customer with a key of the ring. Raises KeysUnavailableError."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + keyring.keys.ciphers[encryption_key].encrypt(nonce, key, _bind_key(customer, encryption_key))


def unwrap_data_key(keyring: Keyring, customer: str, encryption_key: int, wrapped: bytes) -> bytes:
    """Unwrap the data key of a customer. Raises KeysUnavailableError and SealedValueError."""
    try:
        cipher = keyring.keys.ciphers[encryption_key]
        return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bind_key(customer, encryption_key))
    except (InvalidTag, KeyError, ValueError):
        raise SealedValueError(f"the data key of customer {customer} was changed, or is another one's") from None


def _bind_key(customer: str, encryption_key: int) -> bytes:
    return orjson.dumps(["data_keys", customer, encryption_key])
