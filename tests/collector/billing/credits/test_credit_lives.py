"""Random credits that expire, late usage, and usage that is taken back.

At the end, only the remaining usage counts, each in its own hour.
"""

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
from edgeproxy.collector.database.schema import DAY, HOUR, events
from tests.support.credited import ALICE, count, read, run, write

START = 20_000 * DAY
HOURS = 20
LIVES = 40


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
    return [max(one, 0) for one in sums]


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
    meters = CreditMeters("cost")
    for hour in range(HOURS):
        arrived: dict[tuple[int, int], int] = {}
        for number, life in enumerate(lives):
            for one in (*life.uses, *life.corrections):
                if one.arrives == hour:
                    amount = one.amount if isinstance(one, Use) else -one.amount
                    arrived[number, one.hour] = arrived.get((number, one.hour), 0) + amount
        corrected = [(n, one) for n, life in enumerate(lives) for one in life.corrections if one.arrives == hour]
        await record_corrections(database, corrected, hour)
        for at in sorted({at for _, at in arrived}):
            minute = START + at * HOUR + (hour - at) * 60  # Each minute is counted once.
            rows = [(f"c{number}", "cost", used, "m") for (number, of), used in arrived.items() if of == at]
            await count(database, minute, *rows)
        now = START + (hour + 1) * HOUR + COMPLETE_SECONDS
        while await consumption.book_next_hour(database, meters, now):
            pass
        await consumption.revise_days(database, meters, [START])


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
