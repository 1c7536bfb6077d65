"""The quota monitor publishes nearly used-up quotas to edges and raises one alert for each threshold."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import holdings
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import EventRequest, EventWriter
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.quotas import allocations, counts, usage
from edgeproxy.collector.quotas.counts import QuotaCount, is_worth_publishing
from edgeproxy.collector.quotas.customer_quotas import fetch_quotas
from edgeproxy.config.collector.alerts import Alerts
from edgeproxy.config.customers import Customer
from edgeproxy.config.limits import Quota
from edgeproxy.config.meters import Meter
from edgeproxy.config.tiers import Tier
from loadtest.testbed.batch_chains import NOON
from loadtest.testbed.waiting import turned

MINUTE, HOUR, DAY = 60, 3600, 86400
BERLIN = ZoneInfo("Europe/Berlin")
QUOTAS: list[dict[str, Any]] = [
    {"meter": "tokens", "per": "month", "included": "1000", "cap": "hard", "timezone": "Europe/Berlin"},
    {"meter": "tokens", "per": "day", "included": "100000"},
    {"meter": "seats", "included": "3"},
    {"meter": "users", "per": "month", "included": "10"},
    {"meter": "storage_gb", "included": "10", "cap": "hard"},
]
PRO = Tier(quotas=tuple(Quota.model_validate(quota) for quota in QUOTAS))
SETTINGS: Any = SimpleNamespace(
    meters={
        "tokens": Meter(count="events"),
        "users": Meter(count="events", aggregate="unique"),
        "storage_gb": Meter(count="events", aggregate="last"),
        "seats": Meter(count="holdings"),
    },
    tiers={"pro": PRO, "none": Tier()},
    customers={
        "acme": Customer(tier="pro"),
        "full": Customer(tier="pro"),
        "free": Customer(tier="none"),
        "odd": Customer(tier="unknown"),
    },
    alerts=Alerts(),
    billing=None,
)


class World:
    """The event writers and quota monitors of two collectors on one database."""

    def __init__(self, databases: list[Database]) -> None:
        metrics = Metrics()
        self.databases = databases
        self.watches = [QuotaMonitor(database, metrics) for database in databases]
        self.intakes = []
        for database, watch in zip(databases, self.watches, strict=True):
            watch.use(SETTINGS)
            self.intakes.append(EventWriter(database, KnownNames((), (), metrics), metrics, watch.counted))
        self.tasks = Tasks()
        self._events = 0

    async def report(self, which: int, value: int, customer: str = "acme", at: float | None = None) -> None:
        await self.take(
            which, UsageEvent("test", "", customer, "tokens", value, int(time.time() if at is None else at))
        )

    async def take(self, which: int, event: UsageEvent) -> None:
        self._events += 1
        receipt = await self.intakes[which].write_events(
            EventRequest("worker", [(0, event._replace(id=f"e{self._events}"))], ())
        )
        assert receipt.accepted == 1

    async def news(self, which: int, seq: int) -> tuple[int, list[QuotaCount]]:
        newest, changes = await self.watches[which].behind(seq, 20.0)
        assert [change.seq for change in changes] == sorted(change.seq for change in changes)
        return newest, [change.quota_count for change in changes]

    async def raised(self) -> list[str]:
        async with self.databases[0].reading() as connection:
            rows = await connection.execute(sa.select(alerts.c.key, alerts.c.severity).order_by(alerts.c.id))
            return [f"{key.rpartition(':')[2]} {severity}" for key, severity in rows]


async def take_seat(world: World, customer: str, item: str, taken_at: float | None = None) -> None:
    database = world.databases[0]
    async with database.writing() as connection:
        await allocations.allocate(
            database, connection, customer, "seats", item, allowed=3, seconds=None, token="service"
        )
        if taken_at is not None:
            this = (holdings.c.customer == customer) & (holdings.c.item == item)
            await connection.execute(sa.update(holdings).where(this).values(taken_at=int(taken_at * 1000)))


def in_a_world(url: str, play: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        databases = [await Database.connect(url) for _ in range(2)]
        world = World(databases)
        for number, one in enumerate((*world.intakes, *world.watches)):
            world.tasks.start(f"part {number}", one.run())
        try:
            await play(world)
        finally:
            await world.tasks.cancel()
            for database in databases:
                await database.close()

    asyncio.run(run())


def test_each_threshold_is_published_to_edges_and_alerted_once(database: str) -> None:
    async def play(world: World) -> None:
        month = period_of(time.time() - EPOCH, "month", BERLIN).number

        def known(used: int) -> QuotaCount:
            return QuotaCount("acme", "tokens", "month", "Europe/Berlin", month, used)

        async with world.databases[0].writing() as connection:
            of = {"id": "1", "name": "torn", "tier": "pro", "settings": "{", "metadata": "{}"}
            await connection.execute(sa.insert(customers).values(**of, created_at=0, version=1))
        for name in ("acme", "free", "odd", "nobody", "torn"):
            await world.report(0, 799, name)
        await world.report(0, 1)
        assert await world.news(0, 0) == (1, [known(800)])
        assert await world.news(1, 0) == (1, [known(800)]), "the other collector tells it too"
        assert await world.raised() == ["80 info"]
        # Usage that two collectors receive adds up, and both monitors check it.
        await asyncio.gather(world.report(0, 150), world.report(1, 50))
        newest, told = await world.news(1, 1)
        while told[-1] != known(1000):
            newest, told = await world.news(1, newest)
        for watch in world.watches:
            watch.counted([("acme", "tokens")])
        await world.report(1, 200)
        assert (await world.news(0, newest))[1] == [known(1200)]
        assert sorted(await world.raised()) == ["100 warn", "120 page", "80 info"]
        # A new monitor checks all customers with usage, and repeats no alert.
        again = QuotaMonitor(world.databases[0], Metrics())
        again.use(SETTINGS)
        world.tasks.start("rounds", again.run_rounds())
        await turned(lambda: len(again._raised) == 3, "the job has looked at all quotas")
        assert (await world.news(0, 0))[1] == [known(1200)]
        assert len(await world.raised()) == 3
        # An edge gets all counts if its sequence number is ahead, as after a restore of the database.
        assert (await world.news(0, 99))[1] == [known(1200)]
        again.end()
        newest = (await again.behind(0, 0.0))[0]
        assert await again.behind(newest, 20.0) == (newest, []), "no request waits at the end"

    in_a_world(database, play)


def test_use_is_the_ledgers_count_since_the_periods_start_in_its_time_zone(database: str) -> None:
    async def play(world: World) -> None:
        now = time.time()
        since = round(period_of(now - EPOCH, "month", BERLIN).since + EPOCH)
        moments = [since - 1, since, since + 59, now - 3600, now]
        kept = [at for at in moments if since <= at]
        for at in moments:
            await world.report(0, 7, at=at)
        for item in ("ada", "bob", "ada"):
            await world.take(0, UsageEvent("test", "", "acme", "users", 1, int(now), item=item, is_summed=False))

        async def used() -> int:
            async with world.databases[0].reading() as connection:
                held = await fetch_quotas(connection, ["acme"], SETTINGS)
                found = await usage.fetch_statuses(connection, held.values(), SETTINGS.meters, now - EPOCH)
            month, day, seats, users, _ = found["acme"]
            assert (day.quota.per, seats.period, seats.used) == ("day", None, 0)
            assert users.used == 2, "two different ones"
            return month.used

        assert await used() == 7 * len(kept)
        while await rollup.roll_up_slice(world.databases[0], now):
            pass
        assert await used() == 7 * len(kept), "also where it is rolled up"

    in_a_world(database, play)


def test_rollup_during_a_check_counts_usage_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now, read = NOON + 3 * HOUR, rollup.fetch_state

    async def overtaken(connection: AsyncConnection) -> rollup.RollupState:
        monkeypatch.setattr(rollup, "fetch_state", read)
        rolled = await read(connection)
        other = await Database.connect(database)
        while await rollup.roll_up_slice(other, now):
            pass
        await other.close()
        return rolled

    async def play(world: World) -> None:
        watch, metrics = world.watches[0], Metrics()
        intake = EventWriter(world.databases[0], KnownNames((), (), metrics), metrics)
        world.tasks.start("intake", intake.run())
        await intake.write_events(
            EventRequest("worker", [(0, UsageEvent("test", "1", "acme", "tokens", 600, NOON))], ())
        )
        monkeypatch.setattr(usage, "edge_time", lambda: now - EPOCH)
        monkeypatch.setattr(rollup, "fetch_state", overtaken)
        assert not await watch._failed_of({"acme": {"tokens"}})
        assert rollup.fetch_state is read
        assert await world.raised() == [], "600 of 1000 are used"

    in_a_world(database, play)


def test_count_is_published_from_80_percent_and_after_each_step() -> None:
    def count(used: int, period: int = 5) -> QuotaCount:
        return QuotaCount("acme", "tokens", "day", "UTC", period, used)

    assert not is_worth_publishing(None, count(7999), 10_000)
    assert is_worth_publishing(None, count(8000), 10_000)
    assert not is_worth_publishing(count(8000), count(8009), 10_000)
    assert is_worth_publishing(count(8000), count(8010), 10_000)
    assert is_worth_publishing(count(9999), count(10_000), 10_000), "the quota is used up"
    assert is_worth_publishing(count(9000), count(8000, 6), 10_000), "another day"
    assert not is_worth_publishing(None, count(0), 0)
    assert is_worth_publishing(None, count(1), 0)


def test_count_never_falls_and_an_ended_day_never_returns(database: str) -> None:
    async def play(world: World) -> None:
        first = QuotaCount("acme", "tokens", "day", "UTC", 5, 10)
        for one in (first, first._replace(used=9), first._replace(period=4, used=99), first):
            async with world.databases[0].writing() as connection:
                await counts.write_counts(world.databases[0], connection, [one])
        later = first._replace(period=6, used=1)
        async with world.databases[0].writing() as connection:
            await counts.write_counts(world.databases[0], connection, [later])
        assert await world.news(0, 0) == (2, [later])

    in_a_world(database, play)


def test_rising_levels_alert_once_a_month_and_constant_levels_do_not(database: str) -> None:
    last_month = period_of(time.time() - EPOCH, "month", ZoneInfo("UTC")).since + EPOCH - DAY
    month = time.strftime("%Y-%m", time.gmtime())

    async def play(world: World) -> None:
        async def keys_of(customer: str) -> list[str]:
            async with world.databases[0].reading() as connection:
                statement = sa.select(alerts.c.key).where(alerts.c.customer == customer).order_by(alerts.c.key)
                return [
                    key.removeprefix(f"quota:{customer}:") for key in (await connection.execute(statement)).scalars()
                ]

        async def store(customer: str, gigabytes: int, at: float | None = None) -> None:
            second = int(time.time() if at is None else at)
            await world.take(0, UsageEvent("test", "", customer, "storage_gb", gigabytes, second, is_summed=False))

        async def until_raised(customer: str, *expected: str) -> None:
            async with asyncio.timeout(20):
                while (raised := await keys_of(customer)) != sorted(expected):
                    assert len(raised) <= len(expected), raised
                    await asyncio.sleep(0.02)

        # Two of three seats and nine of ten gigabytes are unchanged since last month. Only the third seat is new.
        await store("full", 9, last_month)
        for item in ("a", "b", "c"):
            await take_seat(world, "full", item, last_month if item != "c" else None)
        await store("full", 9)
        for watch in world.watches:
            watch.counted([("full", "seats")])
        await until_raised("full", f"seats:{month}:80", f"seats:{month}:100")
        # Storage grows this month and stays at its cap.
        await store("acme", 8)
        await until_raised("acme", f"storage_gb:{month}:80")
        await store("acme", 10)
        await until_raised("acme", f"storage_gb:{month}:80", f"storage_gb:{month}:100")
        # A new monitor finds the levels that a killed one missed, seats included.
        await take_seat(world, "free", "a")
        for item in ("a", "b", "c"):
            await take_seat(world, "acme", item)
        again = QuotaMonitor(world.databases[0], Metrics())
        again.use(SETTINGS)
        world.tasks.start("rounds", again.run_rounds())
        both = [f"{meter}:{month}:{percent}" for meter in ("seats", "storage_gb") for percent in (80, 100)]
        await until_raised("acme", *both)
        assert await keys_of("full") == sorted([f"seats:{month}:80", f"seats:{month}:100"])

    in_a_world(database, play)
