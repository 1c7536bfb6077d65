"""Usage of customers with credits is booked as consumption: each hour once, and late usage as a revision."""

import asyncio
import random
from time import gmtime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import balances, consumption, credits, statements
from edgeproxy.collector.billing.credits.consumption import COMPLETE_SECONDS, CreditMeters
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import waivers
from edgeproxy.collector.database.schema import DAY, HOUR, customers
from edgeproxy.collector.ledger import rollup
from edgeproxy.config.collector.money import PRICE_SCALE
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.postgresql import Postgresql
from tests.support.books import Books, Clock, clock
from tests.support.collector_fixtures import only_sqlite
from tests.support.credited import ALICE, read, with_customers, write

__all__ = ["clock"]

EUROS = CreditMeters("cost_eur", {"tokens": 3 * PRICE_SCALE // 10_000})
METERS = CreditMeters("cost", {"tokens": 2 * PRICE_SCALE // 10_000}, {"eur": EUROS})
"""The cost of a token is 2 millicredits, or 3 in euros."""


class Shop:
    """A ledger with customers, a clock, and calls that book its usage as consumption."""

    def __init__(self, books: Books, clock: Clock) -> None:
        self.books, self.clock, self.database = books, clock, books.database
        self.chain = Chain()

    async def use(self, at: int, **used: int) -> None:
        """Report `used` millicredits and as many tokens of each customer in the minute of `at`."""
        self.chain.since = at
        rows = [(name, meter, "v1", value) for name, value in used.items() for meter in ("cost", "tokens")]
        await self.books.ship(self.chain.next(*rows))

    async def settle(self, now: int) -> int:
        """Book all complete hours, and return their number."""
        self.clock.now = now
        await self.books.roll_up()
        hours = 0
        while await consumption.book_next_hour(self.database, METERS, now):
            hours += 1
        return hours

    async def booked(self, kind: str = "consumption") -> list[tuple[str, int, int]]:
        """Return the booked hours: customer and hour of day, revision, and amount."""
        columns = credit_transactions.c
        statement = sa.select(columns.source, columns.amount).where(columns.kind == kind).order_by(columns.seq)
        async with self.database.reading() as connection:
            bookings = [(row.source.split("/"), row.amount) for row in await connection.execute(statement)]
        return [
            (f"{customer} {hour[11:13]}", int(revision), -amount) for (customer, hour, revision), amount in bookings
        ]

    async def balance(self, customer: str) -> int:
        return int(await read(self.database, journal.fetch_balance, customer))


def play(url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    """Run `work` on a new ledger with three customers, and verify the journal."""
    monkeypatch.setattr(journal, "now_ms", lambda: int(clock.now * 1000))

    async def do() -> None:
        books = await Books.open(url, clock)
        try:
            await with_customers(books.database, "acme", "bolt", "other")
            await work(Shop(books, clock))
            await read(books.database, verify_journal)
        finally:
            await books.close()

    asyncio.run(do())


def test_usage_is_paid_by_the_meter_of_the_customers_currency(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        opened = shop.database
        async with opened.writing() as connection:
            await connection.execute(sa.update(customers).where(customers.c.name == "bolt").values(currency="eur"))
        clock.now = NOON + 7
        for name in ("acme", "bolt"):
            await write(opened, credits.book_gift, ALICE, f"id-{name}", f"g-{name}", 1000, "welcome", None)

        async def ship(*rows: tuple[str, str, str, int], at: int = NOON + 60) -> None:
            shop.chain.since = at
            await shop.books.ship(shop.chain.next(*rows))

        both = [(name, "cost", "v1", 100) for name in ("acme", "bolt")]
        both += [(name, "cost_eur", "v1", 90) for name in ("acme", "bolt")]
        await ship(*both, *((name, "tokens", "v1", 10) for name in ("acme", "bolt")))
        pending = [await read(opened, consumption.fetch_pending, METERS, name) for name in ("acme", "bolt")]
        assert pending == [100, 90]
        usage = await read(opened, balances.fetch_credit_usage, METERS, ("acme", "bolt"))
        assert {name: tuple(one) for name, one in usage.items()} == {
            "acme": (1000, 100, "usd"),
            "bolt": (1000, 90, "eur"),
        }
        assert await shop.settle(NOON + HOUR + COMPLETE_SECONDS) == 1
        await ship(("bolt", "cost_eur", "v1", 5), ("acme", "cost_eur", "v1", 5), at=NOON + 120)
        await shop.books.roll_up()
        assert await consumption.revise_days(opened, METERS, [NOON // DAY * DAY]) == 1
        assert await shop.booked() == [("id-acme 12", 0, 100), ("id-bolt 12", 0, 90), ("id-bolt 12", 1, 5)]
        async with opened.reading() as connection:
            columns, entries = credit_transactions.c, credit_entries.c
            rows = await connection.execute(
                sa.select(columns.currency, entries.account, sa.func.sum(entries.amount))
                .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
                .group_by(columns.currency, entries.account)
            )
            books = {(currency, account): int(amount) for currency, account, amount in rows}
        assert books == {
            ("usd", "promotion"): 1000,
            ("usd", "deferred"): -900,
            ("usd", "revenue"): -100,
            ("usd", "cogs"): 20,
            ("usd", "payable"): -20,
            ("eur", "promotion"): 1000,
            ("eur", "deferred"): -905,
            ("eur", "revenue"): -95,
            ("eur", "cogs"): 30,
            ("eur", "payable"): -30,
        }

    play(database, clock, monkeypatch, work)


@pytest.mark.both_databases
def test_complete_hours_and_late_usage_are_booked_once(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        opened = shop.database
        await shop.use(NOON + 60, acme=5)
        assert await shop.settle(NOON + 2 * HOUR) == 0, "no customer has credits"
        clock.now = NOON + 600 + 7
        await write(opened, credits.book_purchase, "id-acme", Payment("cs_1", "pi_1", CENT))
        await shop.use(NOON + 540, acme=90, other=1)  # Usage before the purchase is free.
        await shop.use(NOON + 600, acme=100, other=1)
        clock.now = NOON + 1800
        for grant in ("g1", "g2"):
            await write(opened, credits.book_gift, ALICE, "id-bolt", grant, 15, "welcome", (NOON + HOUR) * 1000)
        await shop.use(NOON + 1860, acme=1, bolt=20, other=1)
        assert await read(opened, consumption.fetch_pending, METERS, "acme") == 101
        assert await read(opened, consumption.fetch_pending, METERS, "other") == 0
        assert await shop.settle(NOON + HOUR + COMPLETE_SECONDS - 1) == 0, "the hour is not complete"
        assert await shop.settle(NOON + HOUR + COMPLETE_SECONDS) == 1
        assert await shop.booked() == [("id-acme 12", 0, 101), ("id-bolt 12", 0, 20)]
        assert (await shop.balance("id-acme"), await shop.balance("id-bolt")) == (CENT - 101, 0), "the rest expired"
        assert await read(opened, consumption.fetch_pending, METERS, "acme") == 0

        await shop.use(NOON + 300, acme=1000)  # Late usage from before the purchase.
        await shop.use(NOON + 900, acme=7)
        await shop.use(NOON + HOUR + 900, acme=50)
        for times in (1, 0):
            assert await consumption.revise_days(opened, METERS, [NOON // DAY * DAY]) == times
        await shop.use(NOON + 960, acme=2)
        assert await consumption.revise_days(opened, METERS, [NOON // DAY * DAY]) == 1
        assert await consumption.revise_days(opened, METERS, [NOON // DAY * DAY + DAY]) == 0
        assert (await shop.booked())[2:] == [("id-acme 12", 1, 7), ("id-acme 12", 2, 2)]
        costs = await shop.booked("cost")
        assert [(who, revision) for who, revision, _ in costs] == [
            ("id-acme 12", 0),
            ("id-bolt 12", 0),
            ("id-acme 12", 1),
            ("id-acme 12", 2),
        ]
        async with opened.reading() as connection:
            total = await connection.exec_driver_sql("SELECT sum(amount) FROM credit_entries WHERE account = 'cogs'")
            assert total.scalar_one() == 2 * (101 + 20 + 7 + 2)
        free = {"since": NOON + 2 * HOUR, "until": NOON + 2 * HOUR + 60, "who": "alice", "why": "an incident"}
        async with opened.writing() as connection:
            await connection.execute(sa.insert(waivers), [free])
        await shop.use(NOON + 2 * HOUR, acme=33)
        await shop.use(NOON + 2 * HOUR + 60, acme=4)
        assert await shop.settle(NOON + 30 * HOUR) == 28, "hours in which nothing was used are passed"
        assert (await shop.booked())[4:] == [("id-acme 13", 0, 50), ("id-acme 14", 0, 4)]
        assert await shop.balance("id-acme") == CENT - 101 - 9 - 50 - 4

    play(database, clock, monkeypatch, work)


@pytest.mark.usefixtures("sqlite_with_threads")
def test_two_collectors_book_each_hour_once_and_a_faulty_meter_stops_no_other(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        for customer in ("acme", "bolt"):
            await write(
                shop.database, credits.book_gift, ALICE, f"id-{customer}", f"g-{customer}", 100, "welcome", None
            )
        for hour in range(6):
            await shop.use(NOON + hour * HOUR + 60, acme=10, bolt=1)
        await shop.use(NOON + 6 * HOUR, acme=2 * 10**15)
        now = NOON + 7 * HOUR + COMPLETE_SECONDS
        other = await Database.connect(database)

        async def collector(own: Database) -> None:
            while await consumption.book_next_hour(own, METERS, now):
                pass

        try:
            await asyncio.gather(collector(shop.database), collector(other))
            late = [consumption.revise_days(one, METERS, [NOON // DAY * DAY]) for one in (shop.database, other)]
            assert await asyncio.gather(*late) == [0, 0]
            await shop.use(NOON + 120, bolt=5)
            late = [consumption.revise_days(one, METERS, [NOON // DAY * DAY]) for one in (shop.database, other)]
            assert sorted(await asyncio.gather(*late)) == [0, 1]
        finally:
            await other.close()
        assert sorted(await shop.booked())[:6] == [(f"id-acme {12 + hour}", 0, 10) for hour in range(6)]
        assert await shop.balance("id-bolt") == 100 - 6 - 5
        assert await shop.balance("id-acme") == 100 - 60 - consumption.AMOUNT_MAX

    play(database, clock, monkeypatch, work)


def test_usage_and_its_cost_are_booked_by_model(database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    m1, m2 = ('{"model":"m1"}', '{"model":"m2"}')

    async def entries(shop: Shop, account: str) -> dict[tuple[str, str], int]:
        of = credit_entries.c
        statement = sa.select(of.meter, of.model, sa.func.sum(of.amount)).where(of.account == account)
        async with shop.database.reading() as connection:
            rows = await connection.execute(statement.group_by(of.meter, of.model))
            return {(meter, model): int(amount) for meter, model, amount in rows}

    async def work(shop: Shop) -> None:
        await write(shop.database, credits.book_gift, ALICE, "id-acme", "g", 1000, "welcome", None)
        shop.chain.since = NOON + 60
        rows = [("acme", "cost", "v1", 60, m1), ("acme", "cost", "v1", 40, m2), ("acme", "cost", "v1", 5)]
        await shop.books.ship(shop.chain.next(*rows, ("acme", "tokens", "v1", 30, m1)))
        assert await read(shop.database, consumption.fetch_pending, METERS, "acme") == 105
        assert await shop.settle(NOON + HOUR + COMPLETE_SECONDS) == 1
        await shop.books.ship(shop.chain.next(("acme", "cost", "v1", 7, m2), ("acme", "tokens", "v1", 2, m2)))
        for times in (1, 0):
            assert await consumption.revise_days(shop.database, METERS, [NOON // DAY * DAY]) == times
        assert await entries(shop, "revenue") == {("cost", ""): -5, ("cost", "m1"): -60, ("cost", "m2"): -47}
        assert await entries(shop, "cogs") == {("tokens", "m1"): 60, ("tokens", "m2"): 4}
        month = CalendarMonth(*gmtime(NOON)[:2])
        statement = await read(shop.database, statements.fetch_statement, "id-acme", month, month.end)
        used = [(line.meter, line.model, line.amount) for line in statement.lines if line.kind == "consumption"]
        assert used == [("cost", "", -5), ("cost", "m1", -60), ("cost", "m2", -47)]
        assert statement.opening + sum(line.amount for line in statement.lines) == statement.closing == 1000 - 112

    play(database, clock, monkeypatch, work)


def test_usage_booked_without_its_model_is_not_booked_again() -> None:
    """Older versions booked usage without its model."""
    assert consumption.compute_growth({"m1": 70, "m2": 40}, {"": 100}) == {"m1": 10}
    assert consumption.compute_growth({"m1": 70, "m2": 40}, {"": 110}) == {}
    assert consumption.compute_growth({"m1": 70, "m2": 40}, {"m1": 70, "m2": 30}) == {"m2": 10}


async def waits(database: Database) -> bool:
    """Return whether a transaction waits for a lock."""
    async with database.reading() as connection:
        result = await connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(result.scalar_one())


def test_rollup_during_a_booking_counts_the_hour_once(
    postgresql: Postgresql, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, look = postgresql.database(), rollup.fetch_state

    async def work(shop: Shop) -> None:
        await write(shop.database, credits.book_gift, ALICE, "id-acme", "g", 100, "welcome", None)
        await shop.use(NOON + 60, acme=10)
        now = NOON + HOUR + COMPLETE_SECONDS
        other = await Database.connect(url)
        rolling: list[asyncio.Task[bool]] = []

        async def overtaken(connection: AsyncConnection) -> rollup.RollupState:
            monkeypatch.setattr(rollup, "fetch_state", look)
            rolled = await look(connection)
            rolling.append(asyncio.get_running_loop().create_task(rollup.roll_up_slice(other, now)))
            async with asyncio.timeout(60):
                while not rolling[0].done() and not await waits(other):
                    await asyncio.wait(rolling, timeout=0.02)
            return rolled

        monkeypatch.setattr(rollup, "fetch_state", overtaken)
        assert await consumption.book_next_hour(shop.database, METERS, now)
        await rolling[0]
        await other.close()
        assert await shop.booked() == [("id-acme 12", 0, 10)]

    play(url, clock, monkeypatch, work)


def test_change_during_a_booking_waits_and_sees_no_pending_usage(
    postgresql: Postgresql, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, look = postgresql.database(), rollup.fetch_state

    async def work(shop: Shop) -> None:
        await write(shop.database, credits.book_gift, ALICE, "id-acme", "g", 100, "welcome", None)
        await shop.use(NOON + 60, acme=10)
        other = await Database.connect(url)
        reading: list[asyncio.Task[int]] = []

        async def overtaken(connection: AsyncConnection) -> rollup.RollupState:
            monkeypatch.setattr(rollup, "fetch_state", look)
            pending = write(other, consumption.fetch_pending_locked, METERS, "acme")
            reading.append(asyncio.get_running_loop().create_task(pending))
            async with asyncio.timeout(60):
                while not reading[0].done() and not await waits(other):
                    await asyncio.wait(reading, timeout=0.02)
            return await look(connection)

        monkeypatch.setattr(rollup, "fetch_state", overtaken)
        assert await consumption.book_next_hour(shop.database, METERS, NOON + HOUR + COMPLETE_SECONDS)
        assert await reading[0] == 0
        await other.close()

    play(url, clock, monkeypatch, work)


@pytest.mark.parametrize("seed", range(8))
def test_late_usage_spends_the_credits_that_were_valid_at_its_time(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Two customers have equal credits and usage. One edge reports at once, the other after hours."""
    draw = random.Random(seed)
    hours = 6

    async def work(shop: Shop) -> None:
        clock.now = NOON
        for customer in ("acme", "bolt"):
            await write(shop.database, credits.book_purchase, f"id-{customer}", Payment(f"cs-{customer}", None, 300))
        for number in range(draw.randint(1, 4)):
            amount, end = draw.randint(1, 200), NOON + draw.randint(1, 2 * hours) * HOUR // 2
            for customer in ("acme", "bolt"):
                id_ = f"g{number}-{customer}"
                await write(shop.database, credits.book_gift, ALICE, f"id-{customer}", id_, amount, "x", end * 1000)
        late = []
        for hour in range(hours):
            at, used = NOON + hour * HOUR + 1800, draw.choice([1, draw.randint(1, 150)])
            await shop.use(at, acme=used)
            if draw.random() < 0.5:
                await shop.use(at, bolt=used)
            else:
                late.append((at, used))
            await shop.settle(NOON + (hour + 1) * HOUR + COMPLETE_SECONDS)
            if late and draw.random() < 0.3:
                at, used = late.pop(draw.randrange(len(late)))
                await shop.use(at, bolt=used)
                await consumption.revise_days(shop.database, METERS, [NOON // DAY * DAY])
        draw.shuffle(late)
        for at, used in late:
            await shop.use(at, bolt=used)
            await consumption.revise_days(shop.database, METERS, [NOON // DAY * DAY])
        left = {}
        for customer in ("acme", "bolt"):
            usage = await read(shop.database, balances.fetch_credit_usage, METERS, (customer,))
            grants = await read(shop.database, journal.list_grants, f"id-{customer}")
            left[customer] = usage[customer], [grant.rest for grant in grants]
        assert left["bolt"] == left["acme"], f"seed {seed}"

    play(database, clock, monkeypatch, work)


@only_sqlite("database")
def test_expired_credits_do_not_pay_for_later_usage(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(shop: Shop) -> None:
        clock.now = NOON
        await write(shop.database, credits.book_gift, ALICE, "id-acme", "g", 100, "welcome", (NOON + HOUR) * 1000)
        await shop.settle(NOON + 3 * HOUR + COMPLETE_SECONDS)
        await shop.use(NOON + HOUR, acme=10)
        await shop.use(NOON + HOUR - 60, acme=30)
        await consumption.revise_days(shop.database, METERS, [NOON // DAY * DAY])
        assert await shop.balance("id-acme") == -10
        month = CalendarMonth(*gmtime(NOON)[:2])
        statement = await read(shop.database, statements.fetch_statement, "id-acme", month, month.end)
        lines = [(line.kind, line.amount) for line in statement.lines]
        assert lines == [("gift", 100), ("expiry", -100), ("expiry_reversed", 30), ("consumption", -40)]
        assert statement.opening + sum(line.amount for line in statement.lines) == statement.closing

    play(database, clock, monkeypatch, work)
