"""What is dropped for its age: what is left has the same totals, and is still proved."""

import asyncio

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.schema import (
    COUNTED,
    DAY,
    GAP,
    HOUR,
    QUARANTINED,
    batches,
    checkpoints,
    days,
    hours,
    ledger,
)
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.retention import Sweep
from edgeproxy.wire.batch import Gap
from loadtest.testbed.batch_chains import NOON, Chain
from tests.support.books import Books, Clock, clock, of_days  # noqa: F401

pytestmark = pytest.mark.both_databases

MIDNIGHT = NOON // DAY * DAY
PARTITIONS = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' ORDER BY 1"


async def partitions(books: Books) -> list[str]:
    """Those of the ledger."""
    async with books.database.reading() as connection:
        return list((await connection.exec_driver_sql(PARTITIONS)).scalars())


def test_minutes_and_hours_are_dropped_and_what_they_came_to_stays(database: str, clock: Clock) -> None:  # noqa: F811
    async def run() -> None:
        books = await Books.open(database, clock, of_days(40, 80, None))
        chain = Chain()
        for day in range(0, 120, 7):
            chain.since = clock.now = NOON + day * DAY
            await books.roll_up()  # While nothing is to be rolled up, as it need not look at each hour then.
            await books.ship(chain.next())
            clock.now += 2 * HOUR
            await books.roll_up()
        before = await books.rows(ledger), await books.rows(hours), await books.rows(days)
        assert before[1] == before[2]
        await books.retain()
        at = await books.check()
        whole = books.database.has_partitions
        # NOON is in September; of day 119, in January, 40 days before are in December.
        assert at.minutes_from == (1_796_083_200 if whole else MIDNIGHT + 79 * DAY)
        assert at.hours_from == MIDNIGHT + 39 * DAY
        after = await books.rows(ledger), await books.rows(hours), await books.rows(days)
        assert after[0] < before[0] // 2
        assert before[1] > after[1] > after[0]
        assert after[2] == before[2]
        if whole:
            assert await partitions(books) == ["ledger_2026_12", "ledger_2027_01"]
        # What comes later than that is in the days alone.
        late = Chain(since=NOON)
        await books.ship(late.next())
        await books.check()
        assert await books.rows(ledger) == after[0]
        assert await books.rows(hours) == after[1]
        # Once given up, nothing is kept again.
        longer = Books(books.database, clock, of_days(100, None, None), books.counted)
        await longer.retain()
        assert await books.check() == at
        longer.ingest.end()
        await books.close()

    asyncio.run(run())


def test_a_partition_is_made_for_each_month_that_comes(database: str, clock: Clock) -> None:  # noqa: F811
    async def run() -> None:
        books = await Books.open(database, clock)
        other = await Books.open(database, clock, counted=books.counted)
        chain, second = Chain(), Chain()
        for since in (NOON, NOON + 300 * DAY, 0, NOON + 10 * DAY - 5, NOON):
            for one, of in ((chain, books), (second, other)):
                one.since = since
                assert (await of.ship(one.next())).verdict is Verdict.COUNT
        await books.check()
        if books.database.has_partitions:
            assert await partitions(books) == ["ledger_1970_01", "ledger_2026_09", "ledger_2026_10", "ledger_2027_07"]
            async with books.database.reading() as connection:
                found = await connection.exec_driver_sql(
                    "SELECT reloptions FROM pg_class WHERE relname = 'ledger_2026_09'"
                )
                assert found.scalar_one() == ["fillfactor=50"]
        await other.close()
        await books.close()

    asyncio.run(run())


def test_a_month_that_somebody_reads_is_dropped_later(database: str, clock: Clock) -> None:  # noqa: F811
    async def run() -> None:
        books = await Books.open(database, clock, of_days(2, None, None))
        await books.ship(Chain().next())
        clock.now += 60 * DAY
        await books.roll_up()
        if books.database.has_partitions:
            async with books.database.reading(whole=True) as connection:
                await connection.execute(sa.select(ledger))
                await books.retain()
                assert await partitions(books) == ["ledger_2026_09"]
                await books.ship(Chain(since=int(clock.now)).next())
            await books.retain()
            assert await partitions(books) == ["ledger_2026_11"]
        await books.check()
        await books.close()

    asyncio.run(run())


def test_batches_are_dropped_but_for_the_last_and_those_that_need_somebody(
    database: str,
    clock: Clock,  # noqa: F811
) -> None:
    async def run() -> None:
        books = await Books.open(database, clock, of_days(None, None, 2))
        chain = Chain()
        for _ in range(3):
            await books.ship(chain.next())
        await books.ship(chain.next(gap=Gap(4, 6, "lost")))
        await books.ship(chain.next())
        torn = chain.next()
        await books.ship(torn, b"torn")
        await books.ship(chain.next())
        clock.now += 3 * DAY
        await books.ship(chain.next())  # 10
        await books.retain()
        kept = [batches.c.seq, batches.c.state]
        assert await books.all(sa.select(*kept).order_by(batches.c.seq)) == [(4, GAP), (8, QUARANTINED), (10, COUNTED)]
        assert [row[1:] for row in await books.all(sa.select(checkpoints))] == [
            (9, digest_of(chain, 7), 5, NOON // 60 * 60)
        ]
        await books.check()
        assert str(await books.verify()) == "1 edge, 6 batches (5 of them dropped), 1 gap, 1 quarantined; total 42"
        # What is mended after all is dropped in its time.
        assert (await books.ship(torn)).verdict is Verdict.MEND
        await books.check()
        clock.now += 3 * DAY
        await books.retain()
        assert await books.all(sa.select(*kept).order_by(batches.c.seq)) == [(4, GAP), (10, COUNTED)]
        await books.check()
        # The last may be sent again, whenever; what is dropped is no longer known.
        assert (await books.ship(chain.made[-1])).verdict is Verdict.AGAIN
        assert (await books.ship(chain.made[0])).verdict is Verdict.FORK
        await books.ship(chain.next())
        await books.retain()
        await books.check()
        assert (await books.verify()).dropped == 7
        await books.close()

    asyncio.run(run())


def digest_of(chain: Chain, index: int) -> str:
    """The hash of a batch: what the one after it names."""
    return chain.made[index].prev


def test_batches_that_prove_nothing_are_not_dropped(database: str, clock: Clock) -> None:  # noqa: F811
    async def run() -> None:
        books = await Books.open(database, clock, of_days(None, None, 2))
        chain, other = Chain("broken"), Chain("whole")
        for _ in range(3):
            await books.ship(chain.next())
            await books.ship(other.next())
        async with books.database.writing() as connection:
            of = (batches.c.edge == "broken") & (batches.c.seq == 2)
            await connection.execute(sa.update(batches).where(of).values(body=b"{}", coding="identity"))
        clock.now += 3 * DAY
        for _ in range(2):
            await books.retain()
            assert books.retention.broken == {"broken": "edge broken: batch 2 is not the body that was hashed"}
        left = sa.select(batches.c.edge, sa.func.count()).group_by(batches.c.edge).order_by(batches.c.edge)
        assert await books.all(left) == [("broken", 3), ("whole", 1)]
        await books.close()

    asyncio.run(run())


def test_sweeping_goes_on_where_it_was_left(tmp_path, clock: Clock) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """However many series and days there are, a little at a time, and all of it in the end."""

    async def run() -> None:
        books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
        async with books.database.writing() as connection:
            await books.database.add(
                connection, hours, {NOON + HOUR * n: dict.fromkeys(range(1, 41), 1) for n in range(-100, 100)}
            )
            await connection.exec_driver_sql(
                "INSERT INTO series (edge, region, customer, meter, route) WITH RECURSIVE n(i) AS"
                " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) SELECT 'e', 'r', i, 'm', 'r' FROM n"
            )
        sweep, steps = Sweep(books.database, hours), 0
        while await sweep.delete_next(NOON):
            steps += 1
        assert 3 < steps < 30
        assert await books.rows(hours) == 40 * 100
        assert await books.all(sa.select(sa.func.min(hours.c.hour))) == [(NOON,)]
        assert not await sweep.delete_next(NOON)
        assert await sweep.delete_next(NOON + HOUR)
        await books.close()

    asyncio.run(run())
