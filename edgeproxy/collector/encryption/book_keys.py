"""The keys of the books, one per calendar year (UTC). They encrypt invoice data that must survive an erasure.

The key of a year is created before the year begins. It is destroyed when retention of the year's books ends
(billing/jobs/ended_books.py), oldest first. No erasure affects it. All keys, at most a dozen, are in memory with the
keys that wrap them. Looked-up values, for example Stripe ids, are encrypted with AES-SIV, which encrypts equal values
equally. Any other text is encrypted with AES-256-GCM.
"""

import binascii
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.book_text import SEALED, BookKeyEndedError, BookValueError
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.encryption_tables import book_keys, encryption_keys
from edgeproxy.collector.encryption.key_services import KEY_BYTES, NONCE_BYTES

SIV_BYTES = 64
YEARS_MAX = 11
"""Past years that get a key for existing invoices. Older invoices use the first of these keys."""


class BookKey(NamedTuple):
    """The unwrapped key of a year: one half for texts, the other half for looked-up values."""

    texts: AESGCM
    ids: AESSIV


class BookKeys:
    """The keys of the books in memory, a `BookCipher`. `check` raises KeysUnavailableError once they have expired."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._by_year: Mapping[int, BookKey] = {}

    @property
    def years(self) -> list[int]:
        """The years that have a key, in ascending order."""
        return sorted(self._by_year)

    def replace(self, keys: Mapping[int, bytes]) -> None:
        """Replace all keys, given by year."""
        self._by_year = {year: BookKey(AESGCM(key[:KEY_BYTES]), AESSIV(key[KEY_BYTES:])) for year, key in keys.items()}

    def seal(self, text: str, column: str, *, is_looked_up: bool, year: int | None = None) -> str:
        """Encrypt a value with the key of `year` or the current year. The first or last key replaces a missing one.

        Raises KeysUnavailableError.
        """
        self._check()
        year = min(max(get_year() if year is None else year, min(self._by_year)), max(self._by_year))
        return _seal(self._by_year[year], year, text, column, is_looked_up=is_looked_up)

    def open(self, value: str, column: str, *, is_looked_up: bool) -> str:
        """Decrypt a value. Raises KeysUnavailableError and BookValueError."""
        self._check()
        year, _, encoded = value[len(SEALED) :].partition(":")
        try:
            key, closed = self._by_year[int(year)], binascii.a2b_base64(encoded, strict_mode=True)
            if is_looked_up:
                return key.ids.decrypt(closed, [column.encode()]).decode()
            return key.texts.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], column.encode()).decode()
        except KeyError:
            error = BookKeyEndedError if int(year) < min(self._by_year) else BookValueError
            raise error(f"{column} cannot be decrypted: there is no key of the books of {year}") from None
        except (InvalidTag, ValueError):
            raise BookValueError(f"{column} of a row was changed, or is of another column") from None

    def list_sealed(self, text: str, column: str) -> list[str]:
        """List the ciphertexts of a looked-up value, one per year with a key. Raises KeysUnavailableError."""
        self._check()
        return [_seal(key, year, text, column, is_looked_up=True) for year, key in self._by_year.items()]


def _seal(key: BookKey, year: int, text: str, column: str, *, is_looked_up: bool) -> str:
    if is_looked_up:
        closed = key.ids.encrypt(text.encode(), [column.encode()])
    else:
        nonce = os.urandom(NONCE_BYTES)
        closed = nonce + key.texts.encrypt(nonce, text.encode(), column.encode())
    return f"{SEALED}{year}:{binascii.b2a_base64(closed, newline=False).decode()}"


def get_year(now: float | None = None) -> int:
    """Return the calendar year (UTC) of a Unix second, by default the current year."""
    return time.gmtime(now).tm_year


async def insert_book_keys(connection: AsyncConnection, ciphers: Mapping[int, AESGCM], years: list[int]) -> None:
    """Create the missing keys after the last of `years`, up to next year.

    The first call also creates keys for years with invoices.
    """
    now = get_year()
    if years:
        begin = years[-1] + 1
    else:
        first = (await connection.execute(sa.select(sa.func.min(invoices.c.created_at)))).scalar_one()
        begin = now if first is None else min(now, max(get_year(first // 1000), now - YEARS_MAX))
    current = (await connection.execute(sa.select(sa.func.max(encryption_keys.c.id)))).scalar_one()
    rows = [
        {"year": year, **wrap_book_key(ciphers, year, current, os.urandom(KEY_BYTES + SIV_BYTES))}
        for year in range(begin, now + 2)
    ]
    await connection.execute(build_insert_new(connection, book_keys, "year"), rows)


def wrap_book_key(ciphers: Mapping[int, AESGCM], year: int, encryption_key: int, key: bytes) -> dict[str, object]:
    """Return the columns of a year's key, wrapped by one of the database's keys."""
    nonce = os.urandom(NONCE_BYTES)
    wrapped = nonce + ciphers[encryption_key].encrypt(nonce, key, _bind_key(year, encryption_key))
    return {"encryption_key": encryption_key, "wrapped": wrapped}


def unwrap_book_key(ciphers: Mapping[int, AESGCM], year: int, encryption_key: int, wrapped: bytes) -> bytes:
    """Unwrap the key of a year. Raises BookValueError."""
    try:
        bound = _bind_key(year, encryption_key)
        return ciphers[encryption_key].decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
    except (InvalidTag, KeyError, ValueError):
        raise BookValueError(f"the key of the books of {year} was changed, or is another one's") from None


async def rewrap_book_keys(connection: AsyncConnection, ciphers: Mapping[int, AESGCM], current: int) -> None:
    """Wrap the keys of all years with one of the database's keys, in the transaction of a rotation."""
    old = sa.select(book_keys).where(book_keys.c.encryption_key < current).with_for_update()
    for row in (await connection.execute(old)).all():
        values = wrap_book_key(ciphers, row.year, current, unwrap_book_key(ciphers, *row))
        await connection.execute(sa.update(book_keys).where(book_keys.c.year == row.year).values(**values))


def _bind_key(year: int, encryption_key: int) -> bytes:
    return orjson.dumps(["book_keys", year, encryption_key])
