"""The keys of the books: one for each calendar year (UTC), by which what invoices must keep after an erasure is sealed.

The key of a year is made before the year begins, and destroyed when its books are over (billing/jobs/ended_books.py),
the oldest first. No erasure touches it. All that there are are in memory, a dozen at most, with the keys that wrap
them. What is looked up, such as an id at Stripe, is sealed by AES-SIV, which makes equal ciphertexts of equal values,
and any other text by AES-256-GCM.
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
"""Years of keys that are made for invoices of before; older ones are sealed by the first of them."""


class BookKey(NamedTuple):
    """The key of a year, unwrapped: its half for texts, and that for what is looked up."""

    texts: AESGCM
    ids: AESSIV


class BookKeys:
    """The keys of the books in memory, a `BookCipher`; `check` raises KeysUnavailableError once their time is over."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._by_year: Mapping[int, BookKey] = {}

    @property
    def years(self) -> list[int]:
        """The years that have a key, from the first on."""
        return sorted(self._by_year)

    def replace(self, keys: Mapping[int, bytes]) -> None:
        """Have these keys, by year, and no others."""
        self._by_year = {year: BookKey(AESGCM(key[:KEY_BYTES]), AESSIV(key[KEY_BYTES:])) for year, key in keys.items()}

    def seal(self, text: str, column: str, *, is_looked_up: bool, year: int | None = None) -> str:
        """Return the sealed value, by the key of this year or else of now: of the first or last one where that has
        none; raises KeysUnavailableError."""
        self._check()
        year = min(max(get_year() if year is None else year, min(self._by_year)), max(self._by_year))
        return _seal(self._by_year[year], year, text, column, is_looked_up=is_looked_up)

    def open(self, value: str, column: str, *, is_looked_up: bool) -> str:
        """Return what was sealed; raises KeysUnavailableError and BookValueError."""
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
        """List how a value that is looked up is sealed by the key of each year; raises KeysUnavailableError."""
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
    """Return the calendar year (UTC) of a Unix second, by default of now."""
    return time.gmtime(now).tm_year


async def insert_book_keys(connection: AsyncConnection, ciphers: Mapping[int, AESGCM], years: list[int]) -> None:
    """Make the keys of this year, of the next one and of those between the last of `years`, which have one, and these;
    the first time also those of years with invoices."""
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
    """Return the columns of the key of a year, wrapped by one of the keys of the database."""
    nonce = os.urandom(NONCE_BYTES)
    wrapped = nonce + ciphers[encryption_key].encrypt(nonce, key, _bind_key(year, encryption_key))
    return {"encryption_key": encryption_key, "wrapped": wrapped}


def unwrap_book_key(ciphers: Mapping[int, AESGCM], year: int, encryption_key: int, wrapped: bytes) -> bytes:
    """Return the key of a year; raises BookValueError."""
    try:
        bound = _bind_key(year, encryption_key)
        return ciphers[encryption_key].decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
    except (InvalidTag, KeyError, ValueError):
        raise BookValueError(f"the key of the books of {year} was changed, or is another one's") from None


async def rewrap_book_keys(connection: AsyncConnection, ciphers: Mapping[int, AESGCM], current: int) -> None:
    """Wrap the keys of all years by one of the keys of the database, in the transaction of a rotation."""
    old = sa.select(book_keys).where(book_keys.c.encryption_key < current).with_for_update()
    for row in (await connection.execute(old)).all():
        values = wrap_book_key(ciphers, row.year, current, unwrap_book_key(ciphers, *row))
        await connection.execute(sa.update(book_keys).where(book_keys.c.year == row.year).values(**values))


def _bind_key(year: int, encryption_key: int) -> bytes:
    return orjson.dumps(["book_keys", year, encryption_key])
