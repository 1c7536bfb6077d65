"""Idempotency keys: the first response to a key is stored for a day, and replayed."""

import hashlib
import sqlite3
from typing import NamedTuple

from stripe_sandbox.refusal import ApiError

RETENTION_SECONDS = 86400
KEY_MAX = 255


class StoredAnswer(NamedTuple):
    """The first response to a key."""

    request: str
    status: int
    body: bytes


class IdempotencyKeys:
    """The keys of all calls. `under_way` are those without a response yet."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.under_way: set[tuple[bool, str]] = set()

    def find(self, live: bool, key: str, digest: str, now: int) -> StoredAnswer | None:
        """Find the response to be replayed; raises the refusal of a key that cannot be used."""
        if not 0 < len(key) <= KEY_MAX:
            raise build_key_error(400, f"Idempotency keys have 1 to {KEY_MAX} characters.")
        row = self._connection.execute(
            "SELECT request, status, body, digest, created FROM idempotency WHERE live = ? AND key = ?", (live, key)
        ).fetchone()
        if row is not None and row[4] <= now - RETENTION_SECONDS:
            self._connection.execute("DELETE FROM idempotency WHERE live = ? AND key = ?", (live, key))
            row = None
        if row is None:
            if (live, key) in self.under_way:
                raise build_key_error(
                    409,
                    "There is currently another in-progress request using this Idempotent Key (that probably means you "
                    f"submitted twice, and the other request is still going through): {key}. Please try again later.",
                    "idempotency_key_in_use",
                )
            return None
        if row[3] != digest:
            raise build_key_error(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
                f"using a key other than '{key}' if you meant to execute a different request.",
            )
        return StoredAnswer(*row[:3])

    def store(self, live: bool, key: str, digest: str, now: int, answer: StoredAnswer) -> None:
        """Store the first response to a key."""
        self._connection.execute(
            "INSERT OR REPLACE INTO idempotency (live, key, digest, created, request, status, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (live, key, digest, now, *answer),
        )

    def purge(self, now: int) -> None:
        """Delete keys that are older than a day."""
        self._connection.execute("DELETE FROM idempotency WHERE created <= ?", (now - RETENTION_SECONDS,))


def compute_digest(method: str, path: str, query: str, body: bytes) -> str:
    """Compute a digest that is the same for calls with the same parameters."""
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), query.encode(), body))).hexdigest()


def build_key_error(status: int, message: str, code: str | None = None) -> ApiError:
    """Build the refusal of a key."""
    return ApiError(status, message, kind="idempotency_error", code=code)
