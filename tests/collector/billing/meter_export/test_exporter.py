"""After any fault Stripe's counts equal the ledger's, and the exporter sends no usage twice.

A seed determines a schedule: timely and late usage, answers lost before and after their effect, replayed failures,
storms, outages of more than a day, kills within a round, a wrong clock and a restored database. A schedule runs in one
process and thread with simulated time. `--soak` runs ten thousand schedules.
"""

import asyncio
import gc
import random
import shutil
from collections import Counter
from functools import lru_cache
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.meter_export import exporter, outbox_rows, slicing
from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnlistedError, MeterExporter
from edgeproxy.collector.billing.meter_export.outbox import Answer, RowState
from edgeproxy.collector.billing.meter_export.outbox_rows import OutboxRow
from edgeproxy.collector.billing.meter_export.slices import MeteredSegment
from edgeproxy.collector.billing.meter_export.slicing import Pair, Slicing, Targets
from edgeproxy.collector.billing.mismatch import Comparison as Different
from edgeproxy.collector.billing.mismatch import Drift, Level, measure_drift
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import usage
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.commands import meters
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_outbox, waivers
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import build_batches, sum_events
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.wire.batch import FIRST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.tables_ready import put_tables
from tests.support.counting_stripe import CountingStripe, Killed
from tests.support.one_thread import in_memory

BEGIN = 1_800_000_000 - 1_800_000_000 % 86400
HOUR = 3600
MINUTE = 60
PAIRS: list[Pair] = [("acme", "tokens"), ("acme", "calls"), ("bolt", "tokens"), ("cora", "calls")]
SEGMENT = MeteredSegment(Span(BEGIN - 30 * 86400, BEGIN + 30 * 86400))
TARGETS: Targets = {pair: [SEGMENT] for pair in PAIRS}
WAITING = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
SHARE, STORM = 0.3, 0.9
"""The shares of failing calls, in normal times and in a storm."""
SCHEDULES = 4
SCHEDULES_SOAKED = 10_000


class World:
    """A database, a simulated Stripe, and their common clock."""

    def __init__(self, database: Database, seed: int, share: float = SHARE) -> None:
        self.database = database
        self.now = float(BEGIN)
        self.stripe = CountingStripe(seed, lambda: self.now, share)
        self.used: list[tuple[int, Pair, int]] = []
        """The minute, pair and value of all usage at the edges."""
        self.written = 0
        self.random = random.Random(seed)
        self.length = self.random.choice((3600, 7200))
        self.exporter: MeterExporter

    async def open(self) -> None:
        async with self.database.writing() as connection:
            await connection.execute(sa.update(billing_exporter).values(length=self.length))
            row = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
            await self.database.ledger.insert_edges(connection, [row])
        self.of = Slicing(self.database, "acct_1")
        self.ledger = LedgerWriter(self.database)
        await self.take_over()

    async def take_over(self) -> None:
        bucket = Bucket(1e6, self.now)
        self.exporter = MeterExporter(
            self.of, self.stripe, bucket, clock=lambda: self.now, random_share=self.random.random
        )
        await self.exporter.take_over()

    async def write(self) -> None:
        """Ship the edges' new usage to the ledger."""
        some, self.written = self.used[self.written :], len(self.used)
        if not some:
            return
        events = [UsageEvent("test", "", customer, meter, value, minute) for minute, (customer, meter), value in some]
        async with self.database.writing() as connection:
            await self.ledger.add_batches(connection, build_batches(sum_events(events).sums, {}))

    def use(self, *, late: bool) -> None:
        """Add usage of the last minutes, or of up to five hours ago if `late`."""
        at = self.now - self.random.randint(0, 5 * HOUR if late else 600)
        minute = max(BEGIN, int(at)) // MINUTE * MINUTE
        self.used.append((minute, self.random.choice(PAIRS), self.random.randint(1, 1000)))

    async def turn(self) -> None:
        """Run the collector's periodic work once. A kill restarts the exporter."""
        await self.write()
        await slicing.fix_slices(self.of, TARGETS, BEGIN, self.now)
        try:
            while await self.exporter.step():
                pass
            await self.exporter.resolve_doubts()
        except Killed:
            await self.take_over()

    async def settle(self) -> list[Different]:
        """Run without faults until all usage is settled. Return the comparison of ledger and outbox."""
        self.stripe.share = 0.0
        self.stripe.away_until = 0.0
        last = max((minute for minute, _, _ in self.used), default=0) + 2 * self.length
        self.now = max(self.now, last)
        for _ in range(100):
            await self.turn()
            if await self.is_settled():
                _, rows = await slicing.compare_with_ledger(self.of, TARGETS, BEGIN, self.now)
                if await self.is_settled():
                    return rows
            self.now += self.random.choice((600, 1800, 3600))
        raise AssertionError("not settled")

    async def is_settled(self) -> bool:
        """Return whether no row waits to be sent."""
        async with self.database.reading() as connection:
            return not await outbox_rows.is_waiting(connection)

    def expected(self) -> Counter[Pair]:
        sums: Counter[Pair] = Counter()
        for _, pair, value in self.used:
            sums[pair] += value
        return sums


async def schedule(database: Database, seed: int) -> Counter[str]:
    """Play a schedule on an empty database, and compare Stripe with the ledger. Return the counts of faults."""
    file = database.file
    assert file is not None
    world = World(database, seed)
    await world.open()
    backup, backup_used = file.with_suffix(".kept"), 0
    for number in range(16):
        for _ in range(world.random.randint(0, 6)):
            world.use(late=world.random.random() < 0.2)
        world.stripe.share = STORM if world.random.random() < 0.1 else SHARE
        await world.turn()
        world.now += world.random.choice((20, 120, 300, 600, 1800))
        if world.random.random() < 0.05:  # An outage, sometimes of more than a day.
            world.stripe.away_until = world.now + world.random.choice((HOUR, 26 * HOUR))
            world.now += world.random.choice((HOUR / 2, 25 * HOUR))
        if world.random.random() < 0.05:  # The clock is wrong until an operator restarts the exporter.
            world.stripe.skew = world.random.choice((-61.0, 61.0))
            await world.turn()
            world.stripe.skew = 0.0
            await world.take_over()
        if number == 6 and seed % 3 == 0:
            await database.close()
            shutil.copy(file, backup)
            backup_used = len(world.used)
            await world.open()
        if number == 11 and backup.exists():
            await database.close()
            shutil.copy(backup, file)
            world.now += world.random.choice((2 * HOUR, 30 * HOUR))
            world.stripe.away_until = 0.0
            world.written = backup_used
            await world.open()
    rows = await world.settle()
    names = Counter(identifier for identifier, *_ in world.stripe.events)
    assert [name for name, times in names.items() if times > 1] == [], "counted twice"
    assert world.stripe.totals() == world.expected()
    assert measure_drift(rows).different == 0
    await database.close()
    return world.stripe.calls


def begin(file: Path) -> None:
    """Replace a closed database by an empty one."""
    for old in file.parent.glob(f"{file.stem}.*"):
        old.unlink()
    put_tables(f"sqlite:///{file}")


def play(folder: Path, seeds: range) -> None:
    file = folder / "schedule.db"

    async def one_by_one() -> None:
        calls: Counter[str] = Counter()
        database = in_memory(f"sqlite:///{file}")
        for seed in seeds:
            begin(file)
            try:
                calls += await schedule(database, seed)
            except BaseException:
                print(f"the schedule of seed {seed} fails")
                raise
            if seed % 1000 == 999:
                print(f"{seed + 1} schedules, {process_time():.0f} s of CPU: {dict(calls)}", flush=True)
        assert len(seeds) < 100 or min(calls.values()) > 0, "every fault has come about"

    # All schedules query equal times, so a cache saves the construction of the statements.
    with mock.patch.object(slicing, "build_statement", lru_cache(4096)(slicing.build_statement)):
        asyncio.run(one_by_one())


def test_stripe_counts_equal_the_ledger_after_any_fault(tmp_path: Path) -> None:
    play(tmp_path, range(SCHEDULES))


@pytest.mark.soak
@pytest.mark.timeout(36_000)
def test_usage_is_exported_once_in_ten_thousand_fault_schedules(tmp_path: Path) -> None:
    gc.collect()
    gc.freeze()  # The garbage collector then skips existing objects in each schedule.
    play(tmp_path, range(SCHEDULES_SOAKED))


def in_world(tmp_path: Path, seed: int = 1) -> World:
    return World(in_memory(put_tables(f"sqlite:///{tmp_path}/one.db")), seed, share=0.0)


async def test_rejected_api_key_stops_the_exporter_until_a_restart(tmp_path: Path) -> None:
    async def denied(_: OutboxRow) -> Answer:
        return Answer(401, "Invalid API Key")

    world = in_world(tmp_path)
    await world.open()
    world.use(late=False)
    world.now += HOUR
    good = world.stripe.send
    world.stripe.send = denied  # type: ignore[method-assign]
    await world.turn()
    async with world.database.reading() as connection:
        raised = list((await connection.execute(sa.select(alerts.c.kind))).scalars())
        (row,) = await outbox_rows.select_rows(connection)
    assert sorted(raised) == ["usage_export_failed", "usage_export_stopped"]
    assert row.state is RowState.READY
    world.stripe.send = good  # type: ignore[method-assign]
    await world.turn()
    assert world.stripe.events == []
    await world.take_over()
    await world.turn()
    assert world.stripe.totals() == world.expected()
    await world.database.close()


async def test_clock_skew_of_a_minute_stops_the_exporter(tmp_path: Path) -> None:
    world = in_world(tmp_path)
    await world.open()
    world.use(late=False)
    world.now += HOUR
    world.stripe.skew = -61.0
    await world.turn()
    async with world.database.reading() as connection:
        stopped = (await connection.execute(sa.select(billing_exporter.c.stopped))).scalar_one()
    assert stopped == "this machine's clock is 61 s away from Stripe's"
    assert world.stripe.events == []
    await world.database.close()


async def test_usage_while_charging_is_off_is_stored_and_never_sent(tmp_path: Path) -> None:
    world = in_world(tmp_path)
    await world.open()
    world.used += [(BEGIN + MINUTE * minute, PAIRS[0], 1) for minute in range(60)]
    async with world.database.writing() as connection:
        row = {"since": BEGIN + 10 * MINUTE, "until": BEGIN + 40 * MINUTE, "who": "me", "why": "a trial"}
        await connection.execute(sa.insert(waivers), [row])
    world.now += 2 * HOUR
    await world.settle()
    assert world.stripe.totals() == {PAIRS[0]: 30}
    async with world.database.reading() as connection:
        free = await outbox_rows.select_rows(connection, billing_outbox.c.state == RowState.WAIVED)
    assert sum(row.value for row in free) == 30
    await world.database.close()


async def test_round_with_an_unrecorded_outcome_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise sa.exc.OperationalError("", None, Exception("the server starts"))

    world = in_world(tmp_path)
    await world.open()
    world.use(late=False)
    world.now += HOUR * 4
    with monkeypatch.context() as patched:
        patched.setattr(outbox_rows, "settle_rows", away)
        with pytest.raises(sa.exc.OperationalError):
            await world.turn()
    assert len(world.stripe.events) == 1
    await world.turn()
    async with world.database.reading() as connection:
        (row,) = await outbox_rows.select_rows(connection)
    assert row.state is RowState.ACCEPTED
    assert world.stripe.totals() == world.expected()
    await world.database.close()


async def test_round_sends_only_rows_that_fit_into_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "ROUND_SECONDS", 1.0)

    world = in_world(tmp_path)
    await world.open()
    world.used += [(BEGIN, pair, 1) for pair in PAIRS]
    world.now += HOUR * 4
    await world.write()
    await slicing.fix_slices(world.of, TARGETS, BEGIN, world.now)
    world.exporter._bucket = Bucket(2.0, world.now - 1.0)
    assert await world.exporter.step() == 2
    assert len(world.stripe.events) == 2
    await world.database.close()


async def test_unknown_stripe_customer_does_not_block_the_checks_of_others(tmp_path: Path) -> None:
    world = in_world(tmp_path)
    await world.open()
    world.used += [(BEGIN, ("acme", "tokens"), 1), (BEGIN, ("bolt", "tokens"), 1)]
    world.now += HOUR * 4
    world.stripe.away_until = world.now + 25 * HOUR
    await world.turn()
    world.now += 25 * HOUR
    known = world.stripe.fetch_sum

    async def counted(customer: str, meter: str, span: Span) -> int:
        if customer == "acme":
            raise MeterEventsUnlistedError(customer)
        return await known(customer, meter, span)

    world.stripe.fetch_sum = counted  # type: ignore[method-assign]
    assert await world.exporter.resolve_doubts() == 1
    async with world.database.reading() as connection:
        rows = await outbox_rows.select_rows(connection)
    assert [(row.customer, row.state) for row in rows] == [
        ("acme", RowState.UNKNOWN),
        ("bolt", RowState.VOID),
        ("bolt", RowState.READY),
    ]
    await world.database.close()


async def test_two_collectors_create_one_revision_for_missing_usage(postgresql: Postgresql) -> None:
    async def bring(database: Database, span: Span) -> int:
        async with database.writing() as connection:
            return await slicing.update_outbox(connection, Slicing(database, "acct_1"), TARGETS, span, BEGIN + 86400)

    url = postgresql.database()
    one, other = await Database.connect(url), await Database.connect(url)
    day = Span(BEGIN, BEGIN + 86400)
    event = UsageEvent("test", "", *PAIRS[0], 5, BEGIN)
    async with one.writing() as connection:
        row = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        await one.ledger.insert_edges(connection, [row])
        await LedgerWriter(one).add_batches(connection, build_batches(sum_events([event]).sums, {}))
    async with one.writing() as connection:
        assert await slicing.update_outbox(connection, Slicing(one, "acct_1"), TARGETS, day, BEGIN + 86400) == 1
        brought = asyncio.get_running_loop().create_task(bring(other, day))
        async with asyncio.timeout(60), one.reading() as looking:
            while not (await looking.execute(WAITING)).scalar_one():  # noqa: ASYNC110 - the condition is the server's
                await asyncio.sleep(0.02)
    assert await brought == 0
    await one.close()
    await other.close()


@pytest.mark.parametrize(("parts", "level"), [(5000, "warn"), (500, "page")])
async def test_planted_drift_is_detected_and_named(tmp_path: Path, parts: int, level: str) -> None:
    """0.02 % warns, 0.2 % pages."""

    world = in_world(tmp_path)
    await world.open()
    world.used += [(BEGIN + MINUTE * minute, pair, 1000) for minute in range(60) for pair in PAIRS]
    world.now += 2 * HOUR
    await world.settle()
    units = sum(value for _, _, value in world.used)
    name, customer, meter, value, at = world.stripe.events[0]
    world.stripe.events[0] = (name, customer, meter, value - units // parts, at)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    span = Span(BEGIN, BEGIN + 86400)
    drift, result_level = await usage.reconcile_span(world.database, world.stripe, span, world.now, pause=pause)
    assert (drift, result_level) == (Drift(4, units, units // parts), Level(level))
    assert pauses == [600.0, 600.0]
    async with world.database.reading() as connection:
        (title,) = (await connection.execute(sa.select(alerts.c.title))).scalars()
        states = {row.place[:2]: row.state for row in await outbox_rows.select_rows(connection)}
    assert f"{customer} {meter} -{units // parts}" in title
    assert states[customer, meter] is RowState.ACCEPTED
    assert [pair for pair, state in states.items() if state is RowState.CONFIRMED] == [
        pair for pair in sorted(PAIRS) if pair != (customer, meter)
    ]
    await world.database.close()


def test_recovery_checks_waiting_rows_at_stripe_before_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test follows the runbook's command `edgeproxy billing recover`."""
    url = put_tables(f"sqlite:///{tmp_path}/one.db")
    file, backup = tmp_path / "one.db", tmp_path / "kept.db"
    world = World(Database(url), 1, share=0.0)
    made: list[float] = []

    async def send_after_the_backup() -> None:
        await world.open()
        world.now += 4 * HOUR
        assert await world.exporter.step() == 0, "its heart has beaten"
        world.used += [(BEGIN + MINUTE, pair, 1000) for pair in PAIRS]
        await world.write()
        await slicing.fix_slices(world.of, TARGETS, BEGIN, world.now)
        await world.database.close()
        shutil.copy(file, backup)
        made.append(world.now)
        world.database = Database(url)
        await world.open()
        assert await world.exporter.step() == len(PAIRS)
        await world.database.close()

    async def go_on() -> dict[str, int]:
        world.database = Database(url)
        await world.open()
        while not await world.is_settled():
            await world.exporter.step()
        async with world.database.reading() as connection:
            states = await outbox_rows.count_by_state(connection)
        await world.database.close()
        return {state: count for state, count in states.items() if count}

    asyncio.run(send_after_the_backup())
    for old in tmp_path.glob("one.db*"):
        old.unlink()
    shutil.copy(backup, file)
    world.now += 600
    monkeypatch.setattr(meters, "time", SimpleNamespace(time=lambda: world.now))
    code, output = meters.recheck_usage(
        cast(CollectorSettings, SimpleNamespace(database=url, encryption=None)), made[0]
    )
    assert code == 0, output
    assert asyncio.run(go_on()) == {"confirmed": len(PAIRS)}
    assert world.stripe.totals() == world.expected()
