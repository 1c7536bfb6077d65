"""A job that one of several collectors on a database does: whoever holds the lock of its name.

On PostgreSQL the lock is an advisory one, on SQLite a lock on a file beside the database. Both go with the process that
holds them. Who loses the server loses the lock too, and hears of it only at the end: what is done under it must do no
harm where two do it, as a transaction that raises an alert once ever, or a message that may come twice.
"""

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa

from edgeproxy.database.database import Database, owner_only

LOCK_CLASS = 7305
"""The first number of the advisory locks of jobs; those of `database.py` have one number alone: others than these."""


@asynccontextmanager
async def alone(database: Database, name: str) -> AsyncIterator[bool]:
    """Whether the job of this name is the caller's to do until the block ends; False where somebody else does it now.

    Names are parts of names of files. Nobody waits: who gets False asks again later.
    """
    if database.file is not None:
        handle = owner_only(f"{database.file}.{name}.lock", os.O_RDWR | os.O_CREAT)
        try:
            yield _locked(handle)
        finally:
            os.close(handle)
        return
    async with database.locks.connect() as connection:
        # Of a transaction, so that it is given back with the connection, whatever becomes of both.
        lock = sa.func.pg_try_advisory_xact_lock(LOCK_CLASS, _number(name))
        yield bool((await connection.execute(sa.select(lock))).scalar_one())


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(name: str) -> int:
    """What stands for a name, of 32 bits with a sign."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
