"""A job that one of several collectors on a database does: whoever holds the lock of its name.

On PostgreSQL the lock is an advisory one, on SQLite a lock on a file beside the database. Both go with the process that
holds them. Who loses the server loses the lock too, and stops within seconds (`do_alone`). What is done under it must
do no harm where two do it for so long, as a transaction that raises an alert once ever, or a message that may come
twice.
"""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, format_reason, open_owner_only
from edgeproxy.collector.database.postgresql import IS_WRITABLE, NotPrimaryError

LOCK_CLASS = 7305
"""The first number of the advisory locks of jobs; those of `database.py` have one number alone: others than these."""
LOOK_SECONDS = 2.0
"""Seconds between two looks whether the session that holds a lock is still there."""


class LockLostError(OSError):
    """The lock of a job went with the connection to the server; another collector may do the job now."""


class JobLock(NamedTuple):
    """The result of `acquire_lock`."""

    is_ours: bool
    session: AsyncConnection | None = None
    """The connection that holds the lock on PostgreSQL."""

    async def wait_until_lost(self) -> str:
        """Wait until it is lost, which on SQLite it never is; why."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.session is not None:
                try:
                    if not (await self.session.exec_driver_sql(IS_WRITABLE)).scalar_one():
                        return str(NotPrimaryError())
                except Exception as error:
                    return format_reason(error)


@asynccontextmanager
async def acquire_lock(database: Database, name: str) -> AsyncIterator[JobLock]:
    """Take the lock of this name until the block ends, unless somebody else has it now.

    Names are parts of names of files. Nobody waits: who does not get it asks again later.
    """
    if database.file is not None:
        handle = open_owner_only(f"{database.file}.{name}.lock", os.O_RDWR | os.O_CREAT)
        try:
            yield JobLock(_try_file_lock(handle))
        finally:
            os.close(handle)
        return
    async with database.locks.connect() as connection:
        # Of a transaction, so that it is given back with the connection, whatever becomes of both.
        lock = sa.func.pg_try_advisory_xact_lock(LOCK_CLASS, _number_of(name))
        yield JobLock(bool((await connection.execute(sa.select(lock))).scalar_one()), connection)


@asynccontextmanager
async def try_exclusive(database: Database, name: str) -> AsyncIterator[bool]:
    """Return whether the job of this name is the caller's to do until the block ends: see `taken`. For what takes a
    moment; what takes longer is for `run_exclusively`, which ends it where the lock is lost.
    """
    async with acquire_lock(database, name) as lock:
        yield lock.is_ours


def _try_file_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number_of(name: str) -> int:
    """Return the number of a name: a signed 32-bit integer."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
