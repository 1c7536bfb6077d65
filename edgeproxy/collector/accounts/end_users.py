"""End users of customers, as named by services: stored as an HMAC with a secret of the customer.

Equal names have equal hashes, so they count as one. The secret is deleted when the customer is erased; from then on
names cannot be guessed by trial. With `encryption` the customer's data key encrypts the secret, so that the database
alone does not allow such trials either.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.privacy_tables import end_user_secrets
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.encryption.data_keys import (
    CIPHERTEXT,
    DataKeys,
    SealedValueError,
    fetch_data_keys,
    find_data_keys,
)
from edgeproxy.collector.encryption.keyring import find_keyring
from edgeproxy.collector.encryption.owners import DATABASE, fetch_owner_ids
from edgeproxy.config.collector.settings import CollectorSettings

HASHED = "hmac:"
"""The prefix of hashed items."""
ERASED = "erased:"
"""The prefix of random items that replace erased end users."""
HASH = re.compile(f"{HASHED}[A-Za-z0-9_-]{{43}}")
"""A hashed item: 32 bytes in Base64url without padding."""
SECRET_BYTES = 32
SEALED_MAX = 200
"""The most secrets that one transaction encrypts."""
TABLE, COLUMN = end_user_secrets.name, "secret"
NAMES_MAX = 1000
"""The most customers whose secrets one statement fetches."""

Secrets = dict[str, bytes]
"""Secrets by the ledger's name of the customer."""


def is_hashing(settings: CollectorSettings) -> bool:
    """Return whether end users are stored hashed."""
    return settings.privacy is not None and settings.privacy.hash_end_users


def hash_item(secret: bytes, item: str) -> str:
    """Return an item in its hashed form."""
    return HASHED + urlsafe_b64encode(hmac.digest(secret, item.encode(), sha256)).rstrip(b"=").decode()


def is_hash(item: str) -> bool:
    """Return whether an item has the form of a hashed one. A service's own item may have it, too."""
    return HASH.fullmatch(item) is not None


def make_random_item() -> str:
    """Return a new item that replaces an erased end user."""
    return ERASED + secrets.token_urlsafe(SECRET_BYTES)


async def fetch_secrets(connection: AsyncConnection, customers: Collection[str]) -> Secrets:
    """Return the secrets of the customers that have one.

    Raises KeysUnavailableError and SealedValueError.
    """
    ordered, columns = sorted(customers), end_user_secrets.c
    by_customer: Secrets = {}
    for at in range(0, len(ordered), NAMES_MAX):
        some = sa.select(columns.customer, columns.secret).where(columns.customer.in_(ordered[at : at + NAMES_MAX]))
        by_customer |= {row.customer: row.secret for row in await connection.execute(some)}
    sealed = {one: value for one, value in by_customer.items() if value.startswith(CIPHERTEXT.encode())}
    return by_customer | await _open_secrets(connection, sealed) if sealed else by_customer


async def get_or_create_secrets(connection: AsyncConnection, customers: Collection[str]) -> Secrets:
    """Return the secrets of these customers, and create missing ones.

    Raises KeysUnavailableError and SealedValueError.
    """
    by_customer = await fetch_secrets(connection, customers)
    new = {customer: secrets.token_bytes(SECRET_BYTES) for customer in {*customers} - by_customer.keys()}
    if not new:
        return by_customer
    rows = [{"customer": one, "secret": stored} for one, stored in (await _seal_secrets(connection, new)).items()]
    await connection.execute(build_insert_new(connection, end_user_secrets, "customer"), rows)
    return await fetch_secrets(connection, customers)


async def seal_clear_secrets(database: Database) -> int:
    """Encrypt the secrets that are stored in plain text, and return their number. Raises KeysUnavailableError."""
    columns, count = end_user_secrets.c, 0
    clear = sa.select(end_user_secrets).where(sa.func.length(columns.secret) == SECRET_BYTES).limit(SEALED_MAX)
    while True:
        async with database.writing() as connection:
            rows = (await connection.execute(lock_rows(clear))).all()
            stored = await _seal_secrets(connection, {row.customer: row.secret for row in rows})
            for customer, value in stored.items():
                own = columns.customer == customer
                await connection.execute(sa.update(end_user_secrets).where(own).values(secret=value))
        count += len(rows)
        if len(rows) < SEALED_MAX:
            return count


async def _seal_secrets(connection: AsyncConnection, clear: Secrets) -> Secrets:
    """Return secrets in their stored form."""
    if find_keyring(connection) is None or not clear:
        return clear
    owners = await fetch_owner_ids(connection, TABLE, clear.keys())
    keys = await fetch_data_keys(connection, {owners.get(one, DATABASE) for one in clear}, create=True)
    return {
        one: keys.seal_text(owners.get(one, DATABASE), secret.hex(), TABLE, COLUMN, one).encode()
        for one, secret in clear.items()
    }


async def _open_secrets(connection: AsyncConnection, sealed: Mapping[str, bytes]) -> Secrets:
    """Decrypt stored secrets.

    The secret of a customer that was defined in a file at the time is encrypted with the database's data key.
    """
    owners = await fetch_owner_ids(connection, TABLE, sealed.keys())
    keys = await find_data_keys(connection, {owners.get(one, DATABASE) for one in sealed})
    opened = {}
    for one, value in sealed.items():
        try:
            opened[one] = _open_secret(keys, owners.get(one, DATABASE), one, value)
        except SealedValueError:
            opened[one] = _open_secret(await fetch_data_keys(connection, [DATABASE]), DATABASE, one, value)
    return opened


def _open_secret(keys: DataKeys, owner: str, customer: str, value: bytes) -> bytes:
    return bytes.fromhex(keys.open_text(owner, value.decode(), TABLE, COLUMN, customer))
