"""The roll-up sums minutes into hours and days. All tables have equal totals at any time, for any order of batches."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE_VALUE_MAX, batches, edges, hours, ledger
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.edges import allow_initial_gap
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.collector.ledger.rollup import GRACE
from edgeproxy.wire.batch import Gap, Row
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.postgresql import Postgresql
from tests.support.books import Books, Cell, Clock, clock, of_days  # noqa: F401
from tests.support.collector_fixtures import only_sqlite

pytestmark = pytest.mark.both_databases

HOURS = NOON // HOUR * HOUR
T = TypeVar("T")


async def test_rollup_waits_for_the_hour_of_an_edge_with_a_fast_clock(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    ahead, other = Chain(since=NOON + 400 * DAY), Chain(since=NOON)
    await books.ship(ahead.next())
    await books.ship(other.next())
    clock.now = HOURS + 3 * DAY
    await books.roll_up()
    assert (await books.check()).hour == clock.now - HOUR
    assert await books.rows(hours) == 2
    ahead.since = int(clock.now)  # Its clock is corrected. Its usage is counted in the minutes that it states.
    await books.ship(ahead.next())
    clock.now += HOUR + GRACE
    await books.roll_up()
    await books.check()
    assert await books.rows(hours) == 4
    latest = sa.select(edges.c.latest).where(edges.c.edge == ahead.edge)
    assert await books.all(latest) == [(NOON + 400 * DAY,)]
    await books.close()


async def test_largest_daily_value_fits_into_64_bits(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    chain = Chain(since=NOON)
    for minute in range(3):
        chain.since = NOON + 60 * minute
        assert (await books.ship(chain.next(("acme", "bytes_in", "v1", MINUTE_VALUE_MAX)))).verdict is Verdict.COUNT
    chain.since = NOON
    more = await books.ship(chain.next(("acme", "bytes_in", "v1", 1)))
    assert more.verdict is Verdict.QUARANTINE
    clock.now = NOON + DAY
    await books.roll_up()
    await books.check()
    assert MINUTE_VALUE_MAX * 1440 < 1 << 63
    await books.close()


@pytest.mark.timeout(600)
def test_all_tables_have_equal_totals_for_any_order_of_batches(
    database: str,
    clock: Clock,  # noqa: F811
    seed: int,
    pytestconfig: pytest.Config,
) -> None:
    """Two collectors take turns. Batches are on time, late, from the future, torn and corrected, or gaps.

    Roll-up and retention may stop after any step.
    """
    print(f"seed {seed}")
    steps = 200 if pytestconfig.getoption("soak") else 60
    asyncio.run(at_random(database, clock, random.Random(seed), steps))


async def at_random(url: str, clock: Clock, chance: random.Random, steps: int) -> None:  # noqa: F811
    counted: Counter[Cell] = Counter()
    kept = of_days(chance.choice([2, 12]), chance.choice([None, 13]), chance.choice([1, 5]))
    collectors = [await Books.open(url, clock, kept, counted) for _ in range(2)]
    chains = [Chain(f"edge-{number}", since=NOON) for number in range(3)]
    torn = []
    for step in range(steps):
        books, chain = chance.choice(collectors), chance.choice(chains)
        what = chance.random()
        if what < 0.5:
            clock.now += chance.choice([0, 20, 600])
            late = chance.choice([0, 0, 0, 300, 2 * HOUR, 3 * DAY, 50 * DAY, -DAY])
            chain.since = int(clock.now) - late
            batch = chain.next(*rows(chance))
            if chance.random() < 0.1:
                assert (await books.ship(batch, b"torn")).verdict is Verdict.QUARANTINE
                torn.append(batch)
            else:
                assert (await books.ship(batch)).verdict is Verdict.COUNT
                again = (await chance.choice(collectors).ship(batch)).verdict
                assert again is Verdict.AGAIN
        elif what < 0.55:
            seq = chain.made[-1].last + 1 if chain.made else 1
            if not chain.made:  # An admin must allow a chain that begins with a gap.
                async with books.database.writing() as connection:
                    assert await allow_initial_gap(connection, books.database, chain.edge, seq + 2) == 0
            gap = chain.next(gap=Gap(seq, seq + chance.randrange(3), "lost"))
            assert (await books.ship(gap)).verdict is Verdict.GAP
        elif what < 0.6 and torn:
            mended = torn.pop(chance.randrange(len(torn)))
            assert (await books.ship(mended)).verdict is Verdict.MEND
        elif what < 0.8:
            clock.now += chance.choice([HOUR, HOUR, DAY, 4 * DAY])
            for _ in range(chance.randrange(30)):
                if not await rollup.roll_up_slice(books.database, clock.now, size=chance.choice([1, 2, 5, 100])):
                    break
        else:
            await books.retention.begin_round(clock.now)
            for _ in range(chance.randrange(20)):
                if not await books.retention.drop_next(clock.now):
                    break
        if step % 10 == 0:
            await books.check()
    for books in collectors:
        await books.roll_up()
        await books.retain()
        await books.check()
        assert books.retention.broken == {}
        await books.close()


def rows(chance: random.Random) -> list[Row]:
    return [
        (f"c{number}", meter, "v1", chance.randint(1, 9))
        for number in range(4)
        for meter in ("requests", "bytes_in")
        if chance.random() < 0.4
    ] or [("c0", "requests", "v1", 1)]


async def test_two_collectors_ingest_roll_up_and_delete_concurrently(
    database: str,
    clock: Clock,  # noqa: F811
    seed: int,
) -> None:
    """Two collectors receive batches of their edges, roll up and delete rows at one time."""
    print(f"seed {seed}")

    chance = random.Random(seed)
    counted: Counter[Cell] = Counter()
    collectors = [await Books.open(database, clock, of_days(2, 10, 1), counted) for _ in range(2)]
    clock.now = NOON + 30 * DAY
    ending = False

    async def ship(books: Books, chain: Chain) -> None:
        for number in range(25):
            chain.since = NOON + chance.choice([number * DAY, number * HOUR, 30 * DAY - 10])
            assert (await books.ship(chain.next(*rows(chance)))).verdict is Verdict.COUNT

    async def keep_up(books: Books) -> None:
        while not ending:
            for _ in range(5):
                await rollup.roll_up_slice(books.database, clock.now, size=chance.choice([1, 3, 10]))
            await books.retain()
            await asyncio.sleep(0)

    upkeep = [asyncio.ensure_future(keep_up(books)) for books in collectors]  # noqa: TID251
    await asyncio.gather(*(ship(books, Chain(since=NOON)) for books in collectors for _ in range(3)))
    ending = True
    await asyncio.gather(*upkeep)
    for books in collectors:
        await books.roll_up()
        clock.now += 3 * DAY
        await books.retain()
        await books.check()
        assert books.retention.broken == {}
    assert await collectors[0].rows(ledger) == 0 or not collectors[0].database.is_sqlite
    for books in collectors:
        await books.close()


@only_sqlite("database")
async def test_step_with_a_failed_commit_is_repeated_without_a_trace(database: str, clock: Clock) -> None:  # noqa: F811
    """Every other commit fails.

    Sums would differ if a step had two commits and one recorded that the other had succeeded.
    """

    class Lost(Exception):
        pass

    commits = count(1)

    def lose(*_: object) -> None:
        if next(commits) % 2:
            raise Lost

    books = await Books.open(database, clock, of_days(2, 9, 2))
    chain = Chain()
    for day in (0, 11, 12):
        chain.since = clock.now = NOON + day * DAY
        await books.ship(chain.next(*((f"c{number}", "requests", "v1", 1 + number) for number in range(4))))
    clock.now += DAY
    event.listen(books.database._writer.sync_engine, "commit", lose)

    async def done(step: Callable[[], Awaitable[T]]) -> T:
        while True:
            with suppress(Lost):
                return await step()
            await books.check()

    while await done(lambda: rollup.roll_up_slice(books.database, clock.now, size=5)):
        await books.check()
    await done(lambda: books.retention.begin_round(clock.now))
    while await done(lambda: books.retention.drop_next(clock.now)):
        await books.check()
    assert (await books.rows(ledger), await books.rows(hours), await books.rows(batches)) == (8, 8, 2)
    assert next(commits) > 15
    await books.close()


async def test_rollup_of_an_hour_waits_for_another_collectors_writes(
    postgresql: Postgresql,
    clock: Clock,  # noqa: F811
) -> None:
    """SQLite needs no such test: it has one writer at a time."""

    url = postgresql.database()
    one = await Books.open(url, clock)
    other = await Books.open(url, clock, counted=one.counted)
    chain = Chain(since=NOON)
    await one.ship(chain.next())
    clock.now = NOON + 2 * HOUR
    chain.since = NOON
    batch = chain.next()

    async def waits() -> bool:
        async with one.database.reading() as connection:
            selected = await connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return bool(selected.scalar_one())

    async with one.database.writing() as connection:
        await LedgerWriter(one.database).add_batches(connection, [batch])
        rolling = asyncio.ensure_future(rollup.roll_up_slice(other.database, clock.now))  # noqa: TID251
        while not await waits():
            assert not rolling.done()
    await rolling
    for customer, meter, route, value in batch.rows:
        one.counted[batch.minute, batch.region, customer, meter, route] += value
    async with one.database.reading(whole=True) as connection:
        rolled = sa.select(sa.func.sum(hours.c.value))
        assert (await connection.execute(rolled)).scalar_one() == chain.total == sum(one.counted.values())
    await one.close()
    await other.close()
