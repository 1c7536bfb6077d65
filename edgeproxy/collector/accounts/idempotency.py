"""Responses to requests with an Idempotency-Key, stored for a client that repeats the request.

A response may contain a secret that is stored nowhere else. So the Idempotency-Key encrypts the response. The database
has only a hash of the key. A reader of the database cannot read the responses of a client whose keys cannot be guessed.
"""

import hashlib
import os
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.database.schema import idempotency
from edgeproxy.collector.problems import request_codes

ANSWER_RETENTION_MS = 24 * 3600 * 1000
"""For how many milliseconds responses are stored."""
NONCE_BYTES = 12
DROPPED_AT_ONCE = 20
"""The most old responses deleted with each new one."""


class IdempotentRequest(NamedTuple):
    """A request with an Idempotency-Key."""

    actor: str
    key: str
    request_sha256: str
    """The SHA-256 of the request in hex, from `request_digest`."""

    @property
    def digest(self) -> str:
        """The hash that identifies the stored response."""
        return hashlib.sha256(orjson.dumps([self.actor, self.key])).hexdigest()

    @property
    def encryption_key(self) -> bytes:
        """The key that encrypts the response."""
        return hashlib.sha256(b"idempotency answer\0" + orjson.dumps([self.actor, self.key])).digest()


def request_digest(method: str, path: str, body: bytes) -> str:
    """Return the SHA-256 over method, path and body, in hex."""
    return hashlib.sha256(b"\0".join([method.encode(), path.encode(), body])).hexdigest()


async def find_answer(connection: AsyncConnection, request: IdempotentRequest) -> bytes | None:
    """Return the stored response to a request, or None.

    Raises ChangeRejectedError if the Idempotency-Key came with another request before.
    """
    statement = sa.select(idempotency).where(idempotency.c.key == request.digest)
    row = (
        await connection.execute(statement.where(idempotency.c.created_at > now_ms() - ANSWER_RETENTION_MS))
    ).one_or_none()
    if row is None:
        return None
    if row.request != request.request_sha256:
        raise ChangeRejectedError(
            request_codes.IDEMPOTENCY_KEY_REUSED,
            "this Idempotency-Key came with another request before: choose another one",
        )
    try:
        return AESGCM(request.encryption_key).decrypt(row.answer[:NONCE_BYTES], row.answer[NONCE_BYTES:], None)
    except InvalidTag:
        raise ChangeRejectedError(
            request_codes.IDEMPOTENT_ANSWER_LOST,
            "what was answered to this Idempotency-Key before cannot be read any more",
        ) from None


async def drop_answers(connection: AsyncConnection, now: int) -> int:
    """Delete responses that are too old at this Unix millisecond, at most DROPPED_AT_ONCE. Return their number."""
    created_at = idempotency.c.created_at
    old = sa.select(idempotency.c.key).where(created_at <= now - ANSWER_RETENTION_MS).limit(DROPPED_AT_ONCE)
    return (await connection.execute(sa.delete(idempotency).where(idempotency.c.key.in_(old)))).rowcount


async def store_answer(connection: AsyncConnection, request: IdempotentRequest, answer: bytes) -> None:
    """Store a response in the transaction of its change, and delete some old ones.

    Raises IntegrityError if another transaction has stored a response to the same request meanwhile.
    """
    now = now_ms()
    await drop_answers(connection, now)
    is_own, is_old = idempotency.c.key == request.digest, idempotency.c.created_at <= now - ANSWER_RETENTION_MS
    await connection.execute(sa.delete(idempotency).where(is_own, is_old))
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(request.encryption_key).encrypt(nonce, answer, None)
    row = {"key": request.digest, "request": request.request_sha256, "answer": sealed, "created_at": now}
    await connection.execute(sa.insert(idempotency), [row])
