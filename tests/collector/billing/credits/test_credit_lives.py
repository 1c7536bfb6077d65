"""Random credits that expire, and usage that arrives late: in the end all is as if it had arrived in its hour."""

import random
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.credits import consumption, credits
from edgeproxy.collector.billing.credits.consumption import COMPLETE_SECONDS, CreditMeters
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from tests.support.credited import ALICE, count, read, run, write

START = 20_000 * DAY
HOURS = 20
LIVES = 40


class Gift(NamedTuple):
    """Credits until the beginning of an hour; None: for ever."""

    amount: int
    until: int | None


class Use(NamedTuple):
    """Usage of an hour, which arrives at the end of another one."""

    hour: int
    amount: int
    arrives: int


class CreditLife(NamedTuple):
    gifts: list[Gift]
    uses: list[Use]


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
    return CreditLife(gifts, uses)


def compute_expected(life: CreditLife) -> dict[str, int]:
    """What is left, has expired and is owed, if all usage had been known in its hour."""
    rests = [gift.amount for gift in life.gifts]
    owed = expired = 0
    order = sorted(range(len(rests)), key=lambda one: (life.gifts[one].until is None, life.gifts[one].until or 0))
    for hour in range(HOURS + 1):
        for number, gift in enumerate(life.gifts):
            if gift.until is not None and gift.until <= hour:
                expired, rests[number] = expired + rests[number], 0
        used = sum(use.amount for use in life.uses if use.hour == hour)
        for number in order:
            drawn = min(used, rests[number])
            rests[number], used = rests[number] - drawn, used - drawn
        owed += used
    return {"deferred": sum(rests), "breakage": expired, "overdraft": owed}


async def play(database: Database, lives: list[CreditLife], patch: pytest.MonkeyPatch) -> None:
    now = START
    patch.setattr(journal, "now_ms", lambda: now * 1000)
    for number, life in enumerate(lives):
        for at, gift in enumerate(life.gifts):
            until = None if gift.until is None else (START + gift.until * HOUR) * 1000
            await write(database, credits.book_gift, ALICE, f"id-c{number}", f"{number}-{at}", gift.amount, "x", until)
    async with database.writing() as connection:
        await connection.execute(sa.update(credit_balances).values(since=START))
    meters = CreditMeters("cost")
    for hour in range(HOURS):
        arrived: dict[tuple[int, int], int] = {}
        for number, life in enumerate(lives):
            for use in life.uses:
                if use.arrives == hour:
                    arrived[number, use.hour] = arrived.get((number, use.hour), 0) + use.amount
        for at in sorted({at for _, at in arrived}):
            minute = START + at * HOUR + (hour - at) * 60  # Each minute is counted once.
            rows = [(f"c{number}", "cost", used, "m") for (number, of), used in arrived.items() if of == at]
            await count(database, minute, *rows)
        now = START + (hour + 1) * HOUR + COMPLETE_SECONDS
        while await consumption.book_next_hour(database, meters, now):
            pass
        await consumption.revise_day(database, meters, START)


async def fetch_sums(database: Database) -> dict[str, dict[str, int]]:
    """What each account comes to, by customer."""
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


def test_late_usage_of_credits_that_expire_comes_to_what_it_would_have_in_time(
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
