"""The collector performs roll-up and retention by itself, and loses nothing if it is killed during them."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections import Counter
from itertools import count

import pytest
from sqlalchemy import event

from edgeproxy.collector.database.schema import DAY, HOUR, batches, days, hours, ledger
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import checked
from loadtest.testbed.http_client import ask
from loadtest.testbed.waiting import until
from tests.support.books import Books, Cell, Clock, clock, of_days
from tests.support.collector_fixtures import StartCollector, only_sqlite

pytestmark = pytest.mark.both_databases

__all__ = ["clock"]
FORK = multiprocessing.get_context("fork")
STEP = 8
"""The test kills the process at every STEPth statement. The seed, new each night, decides the first."""


def kill_before(books: Books, number: int) -> None:
    """Kill this process with SIGKILL before its `number`th statement or commit."""
    left = count(1)

    def one(*_: object) -> None:
        if next(left) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    engine = books.database._writer.sync_engine
    event.listen(engine, "before_cursor_execute", one)
    event.listen(engine, "commit", one)


def keep_up(url: str, clock: Clock, number: int) -> None:
    """Run roll-up and retention in a process that is killed before a statement."""

    async def run() -> None:
        books = await Books.open(url, clock, of_days(2, 9, 2))
        kill_before(books, number)
        await books.roll_up(size=3)
        await books.retain()
        await books.close()

    asyncio.run(run())


async def fill(url: str, clock: Clock) -> Counter[Cell]:
    """Ship some days of usage of two edges. Return the counted usage."""
    books = await Books.open(url, clock)
    chains = [Chain("one"), Chain("two")]
    for day in (0, 11, 12):
        for chain in chains:
            chain.since = clock.now = NOON + day * DAY
            await books.ship(chain.next(*((f"c{n}", "requests", "v1", 1 + n) for n in range(4))))
            chain.since += 60
            await books.ship(chain.next())
        clock.now += HOUR + 600
        # The last hour of each day, and all of the last day, have no roll-up yet.
        await books.roll_up() if day < 12 else None
    clock.now += DAY
    await books.close()
    return books.counted


async def look(url: str, clock: Clock, counted: Counter[Cell]) -> None:
    """Assert that the ledger is consistent and holds the counted usage."""
    books = await Books.open(url, clock, counted=counted)
    await books.check()
    await books.close()


@pytest.mark.filterwarnings("ignore:This process")  # Python 3.12+ warns of forks beside threads; the child uses none.
def test_upkeep_killed_at_any_statement_loses_nothing(database: str, clock: Clock, seed: int) -> None:
    """Committed work stays, so that each run proceeds further than the last."""
    counted = asyncio.run(fill(database, clock))
    for number in count(1 + seed % STEP, STEP):
        process = FORK.Process(target=keep_up, args=(database, clock, number))
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0:
            break
        asyncio.run(look(database, clock, counted))
    assert number > 20, "it was killed an eighth as often"

    async def last() -> None:
        books = await Books.open(database, clock, of_days(2, 9, 2), counted)
        await books.retain()
        await books.check()
        assert (await books.verify()).dropped == 8
        assert await books.rows(batches) == 4
        assert await books.rows(days) == 3 * 12
        assert await books.rows(hours) < await books.rows(days)
        assert await books.rows(ledger) == 2 * 12
        await books.close()

    asyncio.run(last())


@only_sqlite("database")
def test_collector_runs_roll_up_and_retention_at_its_start(start_collector: StartCollector) -> None:
    """The run at the start handles the usage found there. Later usage waits for the next run."""
    collector = start_collector(retention={"minutes": "2day", "hours": "3day", "batches": "forever"})
    now = int(time.time())
    old, young = Chain(since=now - 40 * DAY), Chain(since=now - HOUR)
    for chain in (old, young):
        assert collector.post(chain.next()).status == 200
    collector.end()
    collector.start()
    until(lambda: "less is kept" in collector.output, "the job has looked")
    assert collector.usage(by="day")["total"] == 14
    assert checked(collector) == (0, "2 edges, 2 batches, 0 gaps, 0 quarantined; total 14; 0 audit records")
    assert collector.metric("collector_upkeep_failures_total") == 0
    assert collector.metric("collector_unproven_edges") == 0
    run = 'collector_job_runs_total{name="maintenance",result="succeeded"}'
    until(lambda: run in ask(collector.port, "/metrics").body.decode(), "the run is over, too")
    assert collector.metric("collector_job_period_seconds", name="denials") == 60
    refused = collector.get("/v1/usage", **{"from": "1970-01-01", "by": "minute"})
    assert refused.status == 400
