"""A job is one collector's at a time, and another's once that is gone."""

import asyncio
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import run_exclusively
from edgeproxy.collector.database.single_runner import LockLostError, try_exclusive
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import STEP

pytestmark = pytest.mark.both_databases

FORK = multiprocessing.get_context("fork")


def hold(url: str, held: Connection) -> None:
    """Hold the job in a process that is killed."""

    async def run() -> None:
        async with try_exclusive(Database(url), "job") as mine:
            held.send(mine)
            await asyncio.Event().wait()

    asyncio.run(run())


# Python 3.12 and later warn of forks beside threads. No thread is used here.
@pytest.mark.filterwarnings("ignore:This process")
def test_job_lock_has_one_holder_and_ends_with_its_process(database: str) -> None:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(database, theirs), daemon=True)  # It is not to outlive a failure.
    process.start()
    assert ours.poll(60)
    assert ours.recv() is True

    async def run() -> None:
        one, other = Database(database), Database(database)

        async def has() -> bool:
            async with try_exclusive(one, "job") as mine:
                return mine

        try:
            assert not await has(), "the other process holds it"
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            async with asyncio.timeout(60):  # PostgreSQL hears of the death of a client a moment later.
                while not await has():  # noqa: ASYNC110 - the condition is another process's
                    await asyncio.sleep(STEP)
            async with (
                try_exclusive(one, "job") as mine,
                try_exclusive(other, "job") as theirs,
                try_exclusive(other, "another") as free,
            ):
                assert (mine, theirs, free) == (True, False, True)
            with pytest.raises(ZeroDivisionError):
                async with try_exclusive(one, "job"):
                    raise ZeroDivisionError
            async with try_exclusive(other, "job") as mine:
                assert mine, "the lock was released"
        finally:
            await one.close()
            await other.close()

    asyncio.run(run())


async def test_job_stops_when_the_server_ends_its_lock(postgresql: Postgresql) -> None:
    url = postgresql.database()
    one, other = Database(url), Database(url)
    ours = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"

    async def loses_it() -> None:
        async with other.reading() as connection:
            await connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {ours}"))
        await asyncio.Event().wait()

    try:
        async with asyncio.timeout(60):
            with pytest.raises(LockLostError, match="the lock of job is lost: "):
                await run_exclusively(one, "job", loses_it)
        async with try_exclusive(other, "job") as mine:
            assert mine
    finally:
        await one.close()
        await other.close()
