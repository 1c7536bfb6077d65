"""Retention deletes old rows. Totals stay equal and the ledger still verifies."""

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
    """Return the names of the ledger's partitions, oldest first."""
    async with books.database.reading() as connection:
        return list((await connection.exec_driver_sql(PARTITIONS)).scalars())


async def test_retention_deletes_minutes_and_hours_but_keeps_daily_totals(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock, of_days(40, 80, None))
    chain = Chain()
    for day in range(0, 120, 7):
        chain.since = clock.now = NOON + day * DAY
        await books.roll_up()  # Without new rows this is cheap: the roll-up skips the empty hours.
        await books.ship(chain.next())
        clock.now += 2 * HOUR
        await books.roll_up()
    before = await books.rows(ledger), await books.rows(hours), await books.rows(days)
    assert before[1] == before[2]
    await books.retain()
    at = await books.check()
    whole = books.database.ledger.has_partitions
    # NOON is in September. Day 119 is in January, and 40 days before it is December.
    assert at.minutes_from == (1_796_083_200 if whole else MIDNIGHT + 79 * DAY)
    assert at.hours_from == MIDNIGHT + 39 * DAY
    after = await books.rows(ledger), await books.rows(hours), await books.rows(days)
    assert after[0] < before[0] // 2
    assert before[1] > after[1] > after[0]
    assert after[2] == before[2]
    if whole:
        assert await partitions(books) == ["ledger_2026_12", "ledger_2027_01"]
    # Usage older than the retention of minutes and hours is counted in `days` only.
    late = Chain(since=NOON)
    await books.ship(late.next())
    await books.check()
    assert await books.rows(ledger) == after[0]
    assert await books.rows(hours) == after[1]
    # A longer retention does not bring deleted rows back.
    longer = Books(books.database, clock, of_days(100, None, None), books.counted)
    await longer.retain()
    assert await books.check() == at
    longer.ingest.end()
    await books.close()


async def test_ingest_creates_one_partition_per_month(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    other = await Books.open(database, clock, counted=books.counted)
    chain, second = Chain(), Chain()
    for since in (NOON, NOON + 300 * DAY, 0, NOON + 10 * DAY - 5, NOON):
        for one, of in ((chain, books), (second, other)):
            one.since = since
            assert (await of.ship(one.next())).verdict is Verdict.COUNT
    await books.check()
    if books.database.ledger.has_partitions:
        assert await partitions(books) == ["ledger_1970_01", "ledger_2026_09", "ledger_2026_10", "ledger_2027_07"]
        async with books.database.reading() as connection:
            rows = await connection.exec_driver_sql("SELECT reloptions FROM pg_class WHERE relname = 'ledger_2026_09'")
            assert rows.scalar_one() == ["fillfactor=50"]
    await other.close()
    await books.close()


async def test_retention_keeps_a_partition_while_a_transaction_reads_it(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock, of_days(2, None, None))
    await books.ship(Chain().next())
    clock.now += 60 * DAY
    await books.roll_up()
    if books.database.ledger.has_partitions:
        async with books.database.reading(whole=True) as connection:
            await connection.execute(sa.select(ledger))
            await books.retain()
            assert await partitions(books) == ["ledger_2026_09"]
            await books.ship(Chain(since=int(clock.now)).next())
        await books.retain()
        assert await partitions(books) == ["ledger_2026_11"]
    await books.check()
    await books.close()


async def test_retention_keeps_gaps_quarantined_and_last_batches(
    database: str,
    clock: Clock,  # noqa: F811
) -> None:
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
    # A corrected batch is deleted once it is old enough.
    assert (await books.ship(torn)).verdict is Verdict.MEND
    await books.check()
    clock.now += 3 * DAY
    await books.retain()
    assert await books.all(sa.select(*kept).order_by(batches.c.seq)) == [(4, GAP), (10, COUNTED)]
    await books.check()
    # An edge may always repeat its last batch. The collector no longer knows a deleted one.
    assert (await books.ship(chain.made[-1])).verdict is Verdict.AGAIN
    assert (await books.ship(chain.made[0])).verdict is Verdict.FORK
    await books.ship(chain.next())
    await books.retain()
    await books.check()
    assert (await books.verify()).dropped == 7
    await books.close()


def digest_of(chain: Chain, index: int) -> str:
    """Return the hash of the batch before `index`, which batch `index` names."""
    return chain.made[index].prev


async def test_retention_keeps_batches_of_a_broken_chain(database: str, clock: Clock) -> None:  # noqa: F811
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


async def test_sweep_continues_after_its_last_step(tmp_path, clock: Clock) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """The sweep deletes a limited number of rows in each step, for any number of series and days."""

    books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
    async with books.database.writing() as connection:
        await books.database.ledger.add(
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
