"""Jobs that only one of several collectors on a database runs: the holder of the lock of the job's name.

On PostgreSQL it is an advisory lock, on SQLite a lock on a file beside the database. Both end with the process that
holds them. A collector that loses its connection to the server loses the lock and stops the job within seconds. So for
seconds two collectors may run a job. The work must tolerate that: for example, a unique key ensures that an alert is
raised once, or a message may be sent twice.
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
"""The first number of the advisory locks of jobs. The locks of `database.py` have one number, so they never collide."""
LOOK_SECONDS = 2.0
"""Seconds between two checks that the session with the lock still exists."""


class LockLostError(OSError):
    """The lock of a job was lost with the connection to the server. Another collector may now run the job."""


class JobLock(NamedTuple):
    """The result of `acquire_lock`."""

    is_ours: bool
    session: AsyncConnection | None = None
    """The connection that holds the lock on PostgreSQL."""

    async def wait_until_lost(self) -> str:
        """Wait until the lock is lost, and return the reason. On SQLite a lock is never lost."""
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
    """Try to take the lock of this name until the block ends. `is_ours` is false if another process holds it.

    Names are parts of file names. The function does not wait for the lock; callers try again later.
    """
    if database.file is not None:
        handle = open_owner_only(f"{database.file}.{name}.lock", os.O_RDWR | os.O_CREAT)
        try:
            yield JobLock(_try_file_lock(handle))
        finally:
            os.close(handle)
        return
    async with database.locks.connect() as connection:
        # A transaction's lock is released with the connection in any case.
        lock = sa.func.pg_try_advisory_xact_lock(LOCK_CLASS, _number_of(name))
        yield JobLock(bool((await connection.execute(sa.select(lock))).scalar_one()), connection)


@asynccontextmanager
async def try_exclusive(database: Database, name: str) -> AsyncIterator[bool]:
    """Return True if the caller may do the job of this name until the block ends.

    Use it for short work. `run_exclusively` is for long work, because it cancels the work if the lock is lost.
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
    """Return a signed 32-bit integer for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
