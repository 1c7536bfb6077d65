"""Random credits that expire, late usage, and usage that is taken back.

At the end, only the remaining usage counts, each in its own hour. At every moment until then, all figures of a
customer's credits add up.
"""

import csv
import io
import random
from collections import Counter
from functools import partial
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.credits import balances, consumption, consumption_list, credits, statements
from edgeproxy.collector.billing.credits.balances import CreditReport
from edgeproxy.collector.billing.credits.consumption import COMPLETE_SECONDS, CreditMeters
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.credit_tables import (
    credit_balances,
    credit_entries,
    credit_grants,
    credit_transactions,
)
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, events
from tests.support.credited import ALICE, count, read, run, write

START = 20_000 * DAY
HOURS = 20
LIVES = min(40, settings().max_examples // 3)
METERS = CreditMeters("cost")
LATE = 20_028 * DAY - 10 * HOUR
"""Ten hours before the end of a month, as a Unix second."""
LIFE = 2 * DAY
"""The time between the beginnings of two lives, so that one has ended before the next begins."""


class Gift(NamedTuple):
    """Credits until the start of an hour, or for ever if None."""

    amount: int
    until: int | None


class Use(NamedTuple):
    """Usage of an hour, which arrives at the end of another one."""

    hour: int
    amount: int
    arrives: int


class Correction(NamedTuple):
    """Usage that is taken back at the end of an hour: from its own hour, or by a value below zero in another one."""

    hour: int
    amount: int
    arrives: int
    of: int
    """The hour of the usage. It is `hour` if the event was replaced."""


class CreditLife(NamedTuple):
    gifts: list[Gift]
    uses: list[Use]
    corrections: list[Correction]


def draw_life(chance: random.Random) -> CreditLife:
    gifts = [
        Gift(chance.randrange(1, 100), chance.choice([None, *[chance.randrange(1, HOURS)] * 4]))
        for _ in range(chance.randrange(1, 5))
    ]
    uses = []
    for _ in range(chance.randrange(1, 8)):
        hour = chance.randrange(HOURS - 1)
        arrives = hour if chance.random() < 0.5 else chance.randrange(hour, HOURS)
        uses.append(Use(hour, chance.randrange(1, 120), arrives))
    corrections = []
    for use in uses:
        if chance.random() < 0.4:
            arrives = chance.randrange(use.arrives, HOURS)
            at = use.hour if chance.random() < 0.5 else chance.randrange(arrives + 1)
            corrections.append(Correction(at, chance.randrange(1, use.amount + 1), arrives, use.hour))
    return CreditLife(gifts, uses, corrections)


def sum_hours(life: CreditLife) -> list[int]:
    """The usage of each hour in the end. An hour below zero takes from the hours before it, the latest first."""
    sums = [0] * HOURS
    for use in life.uses:
        sums[use.hour] += use.amount
    for correction in life.corrections:
        sums[correction.hour] -= correction.amount
    for hour in range(HOURS):
        for earlier in range(hour - 1, -1, -1):
            part = min(max(sums[earlier], 0), max(-sums[hour], 0))
            sums[earlier], sums[hour] = sums[earlier] - part, sums[hour] + part
    return [max(total, 0) for total in sums]


def compute_expected(life: CreditLife) -> dict[str, int]:
    """The credits that are left, have expired and are owed if all usage is known in its hour."""
    hours = sum_hours(life)
    rests = [gift.amount for gift in life.gifts]
    owed = expired = 0
    order = sorted(range(len(rests)), key=lambda one: (life.gifts[one].until is None, life.gifts[one].until or 0))
    for hour in range(HOURS + 1):
        for number, gift in enumerate(life.gifts):
            if gift.until is not None and gift.until <= hour:
                expired, rests[number] = expired + rests[number], 0
        used = hours[hour] if hour < HOURS else 0
        for number in order:
            drawn = min(used, rests[number])
            rests[number], used = rests[number] - drawn, used - drawn
        owed += used
    return {"deferred": sum(rests), "breakage": expired, "overdraft": owed}


async def record_corrections(database: Database, corrected: list[tuple[int, Correction]], hour: int) -> None:
    """Store the events of corrections, as `events` does: the replaced one with a mark, or the one below zero."""
    rows: list[dict[str, object]] = []
    for place, (number, one) in enumerate(corrected):
        is_replaced = one.hour == one.of
        value = {"value": one.amount, "is_summed": 2} if is_replaced else {"value": -one.amount, "is_summed": 1}
        name = {"source": "s", "id": f"{hour}/{place}", "customer": f"c{number}", "meter": "cost", "is_dated": 1}
        rows.append({**name, **value, "time": START + one.hour * HOUR})
    if rows:
        async with database.writing() as connection:
            await connection.execute(sa.insert(events), rows)


async def play(database: Database, lives: list[CreditLife], patch: pytest.MonkeyPatch) -> None:
    now = START
    patch.setattr(journal, "now_ms", lambda: now * 1000)
    for number, life in enumerate(lives):
        for at, gift in enumerate(life.gifts):
            until = None if gift.until is None else (START + gift.until * HOUR) * 1000
            await write(database, credits.book_gift, ALICE, f"id-c{number}", f"{number}-{at}", gift.amount, "x", until)
    async with database.writing() as connection:
        await connection.execute(sa.update(credit_balances).values(since=START))
    for hour in range(HOURS):
        arrived: dict[tuple[int, int], int] = {}
        for number, life in enumerate(lives):
            for one in (*life.uses, *life.corrections):
                if one.arrives == hour:
                    amount = one.amount if isinstance(one, Use) else -one.amount
                    arrived[number, one.hour] = arrived.get((number, one.hour), 0) + amount
        corrected = [
            (n, correction)
            for n, life in enumerate(lives)
            for correction in life.corrections
            if correction.arrives == hour
        ]
        await record_corrections(database, corrected, hour)
        for at in sorted({at for _, at in arrived}):
            minute = START + at * HOUR + (hour - at) * 60  # Each minute is counted once.
            rows = [(f"c{number}", "cost", used, "m") for (number, of), used in arrived.items() if of == at]
            await count(database, minute, *rows)
        now = START + (hour + 1) * HOUR + COMPLETE_SECONDS
        while await consumption.book_next_hour(database, METERS, now):
            pass
        await consumption.revise_days(database, METERS, [START])


async def fetch_sums(database: Database) -> dict[str, dict[str, int]]:
    """Return each customer's sum in each account."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    joined = sa.join(credit_transactions, credit_entries, credit_entries.c.seq == credit_transactions.c.seq)
    columns = (credit_transactions.c.customer, credit_entries.c.account)
    sums: dict[str, dict[str, int]] = {}
    async with database.reading() as connection:
        for customer, account, amount in await connection.execute(
            sa.select(*columns, total).select_from(joined).group_by(*columns)
        ):
            sums.setdefault(customer, {})[account] = abs(amount)
    return sums


def test_late_and_returned_credit_usage_costs_the_same_as_timely_usage(
    database: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    lives = [draw_life(chance) for _ in range(LIVES)]

    async def work(opened: Database) -> None:
        await play(opened, lives, monkeypatch)
        await read(opened, verify_journal)
        sums = await fetch_sums(opened)
        for number, life in enumerate(lives):
            booked = sums[f"id-c{number}"]
            expected = compute_expected(life)
            assert {name: booked.get(name, 0) for name in expected} == expected, (number, life, booked)

    run(database, work, *(f"c{number}" for number in range(LIVES)))


class Moments:
    """A customer whose credits change at random, and the figures that pages, statements and edges have of them."""

    def __init__(self, database: Database, chance: random.Random, name: str, now: int) -> None:
        self._database, self._chance, self._name = database, chance, name
        self.id, self.now, self._began = f"id-{name}", now, now
        self._held: list[str] = []
        self._disputed: list[tuple[str, int]] = []

    async def step(self) -> str:
        """Do something at random. Return its name."""
        self.now += self._chance.choice((60, 60, 600, 1800, 5400))
        often = (self.use, self.use, self.use, self.correct, self.book, self.book, self.give, self.buy)
        rarely = (self.withdraw, self.refund, self.settle, self.dispute, self.win, self.reverse)
        act = self._chance.choice((*often, *rarely))
        try:
            await act()
        except ChangeRejectedError as error:
            return f"{act.__name__} ({error})"
        return act.__name__

    def _draw(self) -> int:
        return self._chance.randrange(1, 60) * CENT

    async def give(self) -> None:
        until = self._chance.choice((None, self.now + 1800, self.now + 3 * HOUR))
        expires = None if until is None else until * 1000
        await write(
            self._database, credits.book_gift, ALICE, self.id, f"{self._name}-{self.now}", self._draw(), "x", expires
        )

    async def buy(self) -> None:
        payment = Payment(f"cs-{self._name}-{self.now}", f"pi-{self._name}-{self.now}", self._draw())
        await write(self._database, credits.book_purchase, self.id, payment)

    async def use(self) -> None:
        await count(self._database, self.now // 60 * 60, (self._name, "cost", self._chance.randrange(1, 10**6), "m"))

    async def correct(self) -> None:
        amount, minute = self._chance.randrange(1, 10**5), self.now // 60 * 60
        await count(self._database, minute, (self._name, "cost", -amount, "m"))
        name = {"source": "s", "id": f"{self._name}/{minute}", "customer": self._name, "meter": "cost", "is_dated": 1}
        row = {**name, "time": minute, "value": -amount, "is_summed": 1}
        async with self._database.writing() as connection:
            await connection.execute(sa.insert(events), [row])

    async def book(self) -> None:
        while await consumption.book_next_hour(self._database, METERS, self.now):
            pass
        days = range(self._began // DAY * DAY, self.now, DAY)
        await consumption.revise_days(self._database, METERS, days)

    async def fetch(self) -> CreditReport:
        async with self._database.reading(whole=True) as connection:
            return await balances.fetch_report(connection, METERS, self.id, self._name)

    async def withdraw(self) -> None:
        """Take back all that is left of gifts. One credit more is refused."""
        report = await self.fetch()
        most = sum(grant.left for grant in report.grants if not grant.grant.paid)
        act = partial(write, self._database, credits.book_withdrawal, ALICE, self.id, f"w-{self._name}-{self.now}")
        with pytest.raises(ChangeRejectedError):
            await act(most + 1, "x", pending=report.pending)
        if most:
            await act(most, "x", pending=report.pending)

    async def refund(self) -> None:
        """Refund all that can be refunded of a purchase, in whole cents."""
        report, id_ = await self.fetch(), f"r-{self._name}-{self.now}"
        purchases = [grant for grant in report.grants if grant.grant.paid]
        if purchases:
            one = self._chance.choice(purchases)
            of = partial(write, self._database, credits.hold_refund, ALICE, one.grant.id, id_)
            refund = await of(None, "x", pending=report.pending)
            assert refund.cents == one.refundable // CENT
            self._held.append(id_)

    async def settle(self) -> None:
        if self._held:
            is_paid = self._chance.random() < 0.5
            await write(self._database, credits.settle_refund, self._held.pop(), paid=is_paid, refund="re")

    async def dispute(self) -> None:
        purchases = [grant for grant in (await self.fetch()).grants if grant.grant.paid > grant.grant.returned]
        if purchases:
            grant = self._chance.choice(purchases).grant
            intent, amount = grant.id.replace("cs", "pi"), (grant.paid - grant.returned) // CENT * CENT
            await write(self._database, credits.book_chargeback, intent, f"dp-{intent}", amount)
            self._disputed.append((intent, amount))

    async def win(self) -> None:
        if self._disputed:
            intent, amount = self._disputed.pop()
            await write(self._database, credits.book_chargeback_won, intent, f"dp-{intent}", amount)

    async def reverse(self) -> None:
        rows = await read(self._database, consumption_list.list_consumptions, self.id, None, 20)
        left = [row for row in rows if row.amount > row.reversed]
        if left:
            row = self._chance.choice(left)
            amount = self._chance.randrange(1, row.amount - row.reversed + 1)
            id_ = f"u-{self._name}-{self.now}"
            await write(self._database, credits.book_usage_refund, ALICE, row.id, id_, amount, "x")

    async def check(self) -> None:
        """Require that the balance, the grants, the statement and the figures of edges agree."""
        month = statements.month_of(self.now * 1000)
        async with self._database.reading(whole=True) as connection:
            report = await balances.fetch_report(connection, METERS, self.id, self._name)
            statement = await statements.fetch_statement(connection, self.id, month, self.now * 1000)
            usage = (await balances.fetch_credit_usage(connection, METERS, [self._name])).get(self._name)
            spent = await self._fetch_spent(connection)
        assert sum(grant.left for grant in report.grants) == max(report.available, 0), report
        assert usage is None or usage.left == report.available
        statement = statement._replace(pending=report.pending)
        assert statement.opening + sum(line.amount for line in statement.lines) == statement.closing == report.booked
        rows = list(csv.DictReader(io.StringIO(statements.render_csv(statement))))
        amounts = [int(row["millicredits"]) for row in rows]
        assert sum(amounts[:-1]) == amounts[-1] == report.available
        for grant in report.grants:
            assert min(grant.left, grant.used, grant.origin.returned) >= 0, grant
            if spent is not None:
                assert grant.used == spent[grant.grant.id] + grant.grant.rest - grant.left, (grant, spent)

    async def _fetch_spent(self, connection: AsyncConnection) -> dict[str, int] | None:
        """Return the booked usage of each grant, or None after an overdraft, because grants may have paid it."""
        entries, transactions = credit_entries.c, credit_transactions.c
        statement = (
            sa.select(transactions.kind, transactions.seq, entries.account, entries.grant_id, entries.amount)
            .add_columns(credit_grants.c.number)
            .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
            .outerjoin(credit_grants, credit_grants.c.id == entries.grant_id)
            .where(transactions.customer == self.id, entries.account.in_(("deferred", "overdraft")))
        )
        spent: dict[str, int] = Counter()
        for kind, seq, account, grant, amount, number in await connection.execute(statement):
            if account == "overdraft":
                return None
            if kind in ("consumption", "usage_moved", "usage_refund") and seq != number:
                spent[grant] += amount
        return spent


@pytest.mark.parametrize("lives", [3, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_credits_add_up_at_every_moment(
    sqlite_database: str, seed: int, lives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(database: Database) -> None:
        for number in range(lives):
            life = Moments(database, random.Random(seed + number), f"c{number}", LATE + number * LIFE)
            steps = []
            monkeypatch.setattr(journal, "now_ms", lambda life=life: life.now * 1000)
            monkeypatch.setattr(credits, "now_ms", lambda life=life: life.now * 1000)
            for _ in range(30):
                steps.append(await life.step())
                try:
                    await life.check()
                except AssertionError as error:
                    raise AssertionError(f"seed {seed + number}, after {steps}: {error}") from error

    run(sqlite_database, work, *(f"c{number}" for number in range(lives)))
    print(f"{lives} lives from seed {seed}")
