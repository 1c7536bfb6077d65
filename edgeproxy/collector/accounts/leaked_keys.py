"""Keys with a known secret: they are found by it, and revoked if it was found in public."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.key_changes import to_response
from edgeproxy.collector.accounts.key_rows import compute_sha256, select_keys
from edgeproxy.collector.accounts.keys import revoke_key
from edgeproxy.collector.accounts.models import Key
from edgeproxy.collector.accounts.rows import KeyRow
from edgeproxy.collector.database.schema import keys


async def find_by_secret(connection: AsyncConnection, secret: str) -> Key | None:
    """Return the key with this secret, in any state, or None."""
    statement = select_keys(connection).where(keys.c.sha256 == compute_sha256(secret))
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else to_response(KeyRow._make(row))


async def revoke_leaked_key(connection: AsyncConnection, caller: Caller, sha256: str) -> Key | None:
    """Revoke the key with this SHA-256, which was found in public. Return None if no unrevoked key has it."""
    statement = sa.select(keys.c.id).where(keys.c.sha256 == sha256, keys.c.revoked_at.is_(None))
    key_id = await connection.scalar(statement)
    return None if key_id is None else await revoke_key(connection, caller, key_id, why="leaked")


async def list_unrevoked(connection: AsyncConnection, digests: Collection[str]) -> list[str]:
    """Return the SHA-256 hashes in hex among these whose keys exist and are not revoked."""
    statement = sa.select(keys.c.sha256).where(keys.c.sha256.in_(digests), keys.c.revoked_at.is_(None))
    return list(await connection.scalars(statement))
