"""Keys as rows: how they are found, created and changed."""

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.rows import CustomerRow, KeyRow
from edgeproxy.collector.accounts.states import AccountStateError, require_key_transition
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.parsers import DIGEST

SHA256_START_CHARACTERS = 8
NOT_FOUND = "there is no such key"
ROTATE_EVERY = "edgeproxy_rotate_every"
"""The connection option for `rotation.every` in seconds."""


def select_keys(connection: AsyncConnection) -> AnySelect:
    """Return the query of all keys, with the columns of KeyRow."""
    every = sa.func.coalesce(customers_table.c.rotate_every, find_rotate_every(connection)).label("rotate_every")
    of_customer = {"customer_name": customers_table.c.name.label("customer_name"), "rotate_every": every}
    columns = [of_customer[name] if name in of_customer else keys.c[name] for name in KeyRow._fields]
    return sa.select(*columns).select_from(keys.join(customers_table, customers_table.c.id == keys.c.customer))


def set_rotate_every(database: Database, every: float | None) -> None:
    """Set the age in seconds that makes keys due if their customer has no `rotate_every`."""
    database.set_option(ROTATE_EVERY, None if every is None else round(every))


def find_rotate_every(connection: AsyncConnection) -> int | None:
    """Return the age in seconds that makes keys due if their customer has no `rotate_every`; None means never."""
    sync = connection.sync_connection
    assert sync is not None  # An open connection always has one.
    every: int | None = sync.get_execution_options().get(ROTATE_EVERY)
    return every


async def get_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> KeyRow:
    """Return the row of a key by its id or the SHA-256 of its secret. Raises ChangeRejectedError if there is none."""
    row = await find_row(connection, ref, lock=lock)
    if row is None:
        raise ChangeRejectedError(account_codes.KEY_NOT_FOUND, NOT_FOUND)
    return row


async def find_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> KeyRow | None:
    """Return the row of a key by its id or the SHA-256 of its secret, or None."""
    is_digest = DIGEST.fullmatch(ref) is not None
    if not is_digest and not is_id(ref):
        return None
    statement = select_keys(connection).where(keys.c.sha256 == ref.lower() if is_digest else keys.c.id == ref)
    if lock:
        statement = statement.with_for_update(of=keys)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else KeyRow._make(row)


async def transition(connection: AsyncConnection, before: KeyRow, **columns: str | int | None) -> KeyRow:
    """Write columns of a key, and return its new row. All changes of keys go through this function.

    Raises AccountStateError if KEY_TRANSITIONS does not allow the step, or if the row has changed since.
    """
    after = before._replace(**columns, version=before.version + 1)  # type: ignore[arg-type]
    require_key_transition(before, after, now_ms())
    unchanged = (keys.c.id == before.id) & (keys.c.version == before.version)
    statement = sa.update(keys).where(unchanged).values(**columns, version=after.version)
    if (await connection.execute(statement)).rowcount != 1:
        raise AccountStateError(request_codes.CHANGED_MEANWHILE, "the key has changed meanwhile")
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
    """Return the row of a new key. Without a `start`, people identify it by its SHA-256."""
    return KeyRow(
        id=generate_id(),
        customer=owner.id,
        customer_name=owner.name,
        sha256=sha256,
        start=start or format_sha256_start(sha256),
        name=name,
        scopes=scopes,
        limits=limits,
        budget=budget,
        created_at=now_ms(),
        version=1,
        expires_at=expires_at,
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
    """Return the displayed start of a key whose SHA-256 alone is known."""
    return f"sha256:{sha256[:SHA256_START_CHARACTERS]}"
