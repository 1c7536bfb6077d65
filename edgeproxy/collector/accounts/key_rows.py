"""Keys as rows: how they are found, created and changed."""

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.accounts.states import AccountStateError, require_key_transition
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys
from edgeproxy.config.parsers import DIGEST

SHA256_START_CHARACTERS = 8
NOT_FOUND = "there is no such key"
KEY_ROWS = sa.select(
    *keys.c, customers_table.c.name.label("customer_name"), customers_table.c.rotate_every
).select_from(keys.join(customers_table, customers_table.c.id == keys.c.customer))
"""The query of all keys, in the columns of KeyRow."""


async def get_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> KeyRow:
    """Return the row of a key by its id or the SHA-256 of its secret. Raises ChangeRejectedError if there is none."""
    is_digest = DIGEST.fullmatch(ref) is not None
    if not is_digest and not is_id(ref):
        raise ChangeRejectedError(404, NOT_FOUND)
    statement = KEY_ROWS.where(keys.c.sha256 == ref.lower() if is_digest else keys.c.id == ref)
    if lock:
        statement = statement.with_for_update(of=keys)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise ChangeRejectedError(404, NOT_FOUND)
    return KeyRow._make(row)


async def transition(connection: AsyncConnection, before: KeyRow, **columns: str | int | None) -> KeyRow:
    """Write columns of a key, and return its row as it is then. All changes of keys go through here.

    Raises AccountStateError where KEY_TRANSITIONS does not allow the step, or the row has changed since.
    """
    after = before._replace(**columns, version=before.version + 1)  # type: ignore[arg-type]
    require_key_transition(before, after, now_ms())
    unchanged = (keys.c.id == before.id) & (keys.c.version == before.version)
    statement = sa.update(keys).where(unchanged).values(**columns, version=after.version)
    if (await connection.execute(statement)).rowcount != 1:
        raise AccountStateError("the key has changed meanwhile")
    return after


def build_row(
    owner: CustomerRow,
    sha256: str,
    *,
    start: str | None = None,
    name: str | None = None,
    scopes: str | None = None,
    limits: str | None = None,
    budget: str | None = None,
    expires_at: int | None = None,
) -> KeyRow:
    """Return the row of a new key; without a `start` people know it by its SHA-256."""
    return KeyRow(
        id=generate_id(),
        customer=owner.id,
        sha256=sha256,
        start=start or format_sha256_start(sha256),
        name=name,
        scopes=scopes,
        limits=limits,
        budget=budget,
        created_at=now_ms(),
        expires_at=expires_at,
        revoked_at=None,
        revoked_for=None,
        last_used_on=None,
        successor=None,
        version=1,
        customer_name=owner.name,
        rotate_every=owner.rotate_every,
    )


async def insert_rows(connection: AsyncConnection, rows: Sequence[KeyRow]) -> None:
    """Insert new keys."""
    if rows:
        names = keys.c.keys()
        await connection.execute(sa.insert(keys), [{name: getattr(row, name) for name in names} for row in rows])


def compute_sha256(secret: str) -> str:
    """Return the SHA-256 of a key in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def format_sha256_start(sha256: str) -> str:
    """Return the start of a key of which only the SHA-256 is known, as people see it."""
    return f"sha256:{sha256[:SHA256_START_CHARACTERS]}"
