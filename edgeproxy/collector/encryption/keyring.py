"""The keyring: the database's keys under the master key, unwrapped in the memory of this process only.

Key 0 makes the hashes for looking up rows. The other keys wrap customers' data keys; the highest number wraps new ones.
Unwrapped keys are valid for a limited time. An expired keyring refuses to encrypt and decrypt, so that a process
without access to the master key loses access to the data.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.lru_cache import LRUCache
from edgeproxy.collector.database.book_text import BookValueError
from edgeproxy.collector.database.database import Database, UnusableDatabaseError, build_insert_new
from edgeproxy.collector.database.encryption_tables import book_keys, encryption_keys
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.encryption.book_keys import BookKeys, get_year, insert_book_keys, unwrap_book_key
from edgeproxy.collector.encryption.key_services import (
    KEY_BYTES,
    CommandKeyService,
    FileKeyService,
    KeyService,
    KeyServiceError,
)
from edgeproxy.config.collector.encryption import Encryption
from edgeproxy.config.collector.encryption import KeyService as KeyServiceSettings

LOOK_UP = 0
"""The id of the key for hashes."""
DATA_KEYS_MAX = 20_000
"""Most data keys in memory."""
OPTION = "edgeproxy_keyring"
"""The option of a connection with the keyring of its database."""


class KeysUnavailableError(OSError):
    """Keys cannot be unwrapped now. The work is done later, as when the database is unavailable."""


class Keys(NamedTuple):
    """The unwrapped keys of a database."""

    ciphers: Mapping[int, AESGCM]
    """Keys that wrap data keys, by id."""
    look_up: bytes


class Keyring:
    """The keys of a database, valid for `seconds` after each unwrapping."""

    def __init__(
        self, services: Sequence[KeyService], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The first service wraps keys. All services unwrap them."""
        self._services = services
        self.seconds = seconds
        self._clock = clock
        self._keys: Keys | None = None
        self._unwrapped_at = 0.0
        self.data_keys: LRUCache[str, AESGCM] = LRUCache(DATA_KEYS_MAX)
        """Recently unwrapped data keys, by the customer's id. They expire with the keys that wrap them."""
        self.books = BookKeys(lambda: self.keys)

    @property
    def keys(self) -> Keys:
        """The keys. Raises KeysUnavailableError if they have expired."""
        if (why := self.find_gap()) is not None or self._keys is None:
            raise KeysUnavailableError(why)
        return self._keys

    def find_gap(self) -> str | None:
        """Return the reason why nothing can be decrypted now, or None."""
        if self._keys is None or self._clock() - self._unwrapped_at >= self.seconds:
            self._keys = None
            self.data_keys.clear()
            return "keys of encrypted columns could not be unwrapped anew in time"
        return None

    async def load(self, connection: AsyncConnection) -> None:
        """Unwrap all keys of the database again. Raises KeyServiceError, and then keeps the previous keys."""
        joined = encryption_keys.outerjoin(book_keys, book_keys.c.encryption_key == encryption_keys.c.id)
        both = sa.select(encryption_keys, book_keys.c.year, book_keys.c.wrapped.label("wrapped_book"))
        async with across_customers(connection):  # One statement, because a rotation may end meanwhile.
            rows = (await connection.execute(both.select_from(joined).order_by(encryption_keys.c.id))).all()
        by_id = {row.id: row for row in rows}
        unwrapped = {id_: await self._unwrap(id_, row.wrapped, row.sha256) for id_, row in by_id.items()}
        look_up = unwrapped.pop(LOOK_UP)
        ciphers = {id_: AESGCM(key) for id_, key in unwrapped.items()}
        books = [(row.year, row.id, row.wrapped_book) for row in rows if row.year is not None]
        self.books.replace({row[0]: unwrap_book_key(ciphers, *row) for row in books})
        self._keys = Keys(ciphers, look_up)
        self._unwrapped_at = self._clock()
        self.data_keys.clear()  # They expire with the keys: these are unwrapped four times per `seconds`.

    async def _unwrap(self, id_: int, wrapped: bytes, sha256: str) -> bytes:
        """Unwrap a key with the first service that can. Raises KeyServiceError."""
        reasons = []
        for service in self._services:
            try:
                key = await service.unwrap(wrapped)
            except KeyServiceError as error:
                reasons.append(str(error))
            else:
                if hash_key(key) == sha256:
                    return key
                reasons.append(f"{service.name} unwraps another key")
        raise KeyServiceError(f"key {id_} of the database cannot be unwrapped: {'; '.join(reasons)}")

    async def _wrap(self, key: bytes) -> bytes:
        """Wrap a key with the first service, and check that it can be unwrapped. Raises KeyServiceError.

        Without the check, a service that wraps and unwraps with different keys would be noticed only when nothing can
        be decrypted.
        """
        service = self._services[0]
        wrapped = await service.wrap(key)
        if await service.unwrap(wrapped) != key:
            raise KeyServiceError(f"{service.name} unwraps another key than it has wrapped")
        return wrapped

    async def insert_key(self, connection: AsyncConnection, id_: int) -> None:
        """Create a key with this id, unless it exists. Raises KeyServiceError."""
        key = os.urandom(KEY_BYTES)
        row = {
            "id": id_,
            "wrapped": await self._wrap(key),
            "sha256": hash_key(key),
            "created_at": round(time.time() * 1000),
        }
        await connection.execute(build_insert_new(connection, encryption_keys, "id").values(row))

    async def rewrap_key(self, connection: AsyncConnection, id_: int) -> None:
        """Wrap a key with the first service, whichever service wrapped it before. Raises KeyServiceError."""
        own = encryption_keys.c.id == id_
        row = (await connection.execute(sa.select(encryption_keys).where(own).with_for_update())).one()
        key = await self._unwrap(id_, row.wrapped, row.sha256)
        wrapped = await self._wrap(key)
        await connection.execute(sa.update(encryption_keys).where(own).values(wrapped=wrapped))


def hash_key(key: bytes) -> str:
    """Return the hash that identifies a wrong key. A hash of 32 random bytes cannot be guessed."""
    return hashlib.sha256(key).hexdigest()


def find_keyring(connection: AsyncConnection) -> Keyring | None:
    """Return the keyring of a connection's database, or None if nothing is encrypted."""
    sync = connection.sync_connection
    assert sync is not None  # An open connection always has one.
    keyring: Keyring | None = sync.get_execution_options().get(OPTION)
    return keyring


def open_key_service(settings: KeyServiceSettings) -> KeyService:
    """Return the key service for these settings. Raises KeyServiceError if its package is not installed."""
    if settings.kms is not None:
        try:
            from edgeproxy.collector.encryption.aws_kms import AwsKmsKeyService
        except ImportError:
            raise KeyServiceError("`kms` needs botocore: pip install 'edgeproxy[kms]'") from None
        return AwsKmsKeyService(settings.kms)
    if settings.command is not None:
        return CommandKeyService(settings.command)
    assert settings.file is not None  # The settings require it.
    return FileKeyService(settings.file)


async def open_keyring(database: Database, settings: Encryption | None) -> Keyring | None:
    """Open the keyring of a database for its connections, or return None if nothing is encrypted.

    The first call with settings creates the keys. Raises UnusableDatabaseError if a key cannot be unwrapped, or if the
    database has keys but there are no settings.
    """
    async with database.reading() as connection:
        ids = set(await connection.scalars(sa.select(encryption_keys.c.id)))
    if settings is None:
        if ids:
            raise UnusableDatabaseError(f"{database.name} has encrypted columns: set `encryption` as it was")
        return None
    try:
        keyring = Keyring([open_key_service(one) for one in (settings, *settings.old)], settings.cache)
        if not ids:
            async with database.writing() as connection:
                for id_ in (LOOK_UP, LOOK_UP + 1):
                    await keyring.insert_key(connection, id_)
        await _load_keys(database, keyring)
    except (BookValueError, KeyServiceError) as error:
        raise UnusableDatabaseError(f"{database.name} cannot be decrypted: {error}") from None
    database.set_option(OPTION, keyring)
    database.set_book_cipher(keyring.books)
    return keyring


async def _load_keys(database: Database, keyring: Keyring) -> None:
    """Unwrap all keys, and create missing keys of the books. Raises KeyServiceError."""
    async with database.reading() as connection:
        await keyring.load(connection)
    if get_year() + 1 not in keyring.books.years:
        async with database.writing() as connection:
            await insert_book_keys(connection, keyring.keys.ciphers, keyring.books.years)
            await keyring.load(connection)


async def refresh_keyring(database: Database, keyring: Keyring) -> None:
    """Unwrap the keys again. Raises KeysUnavailableError, and then keeps the previous keys until they expire."""
    try:
        await _load_keys(database, keyring)
    except KeyServiceError as error:
        raise KeysUnavailableError(str(error)) from None
