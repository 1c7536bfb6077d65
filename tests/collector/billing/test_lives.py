"""Random lives of subscriptions: changes, ends, returns, late usage, coupons and two currencies, on both databases.

The product keeps each life in its database, with invoices that are closed when they are due. A second rater says what
the whole life costs. A life that fails is shrunk to the smallest one that fails in the same way, and printed: add it to
KEPT, which is played first. `EDGEPROXY_LIFE_SECONDS` is how long the test draws lives.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.invoices import invoiced_lines, invoices
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.rating.rater import Segment, sum_amounts
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from tests.support import second_rater
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at
from tests.support.second_rater import PlanPart
from tests.support.sold import CALLER, Sold, sold

MONTHS = (JANUARY, FEBRUARY, MARCH, at(2027, 4, 1))
"""The beginnings of the months of a life, and the end of the last one."""
PLANS = {
    "small@1": {"fee": {"usd": "31", "eur": "29.50"}, "annual": {"discount": "20%"}, "tier": "standard"},
    "middle@1": {"fee": {"usd": "62", "eur": "59.99"}, "tier": "standard"},
    "large@1": {"fee": {"usd": "310", "eur": "301"}, "annual": {"discount": "7%"}, "tier": "enterprise"},
}
METERS = {
    "small@1": {"included": "100", "price": {"usd": "0.0133", "eur": "0.0127"}},
    "middle@1": {"included": "250", "price": {"usd": "0.0111", "eur": "0.01"}},
    "large@1": {
        "tiers": [
            {"up_to": "300", "price": {"usd": "0.0101", "eur": "0.0099"}},
            {"up_to": "none", "price": {"usd": "0.005", "eur": "0.0047"}},
        ]
    },
}
COUPON = {"percent_off": "33%", "duration": "repeating", "periods": 2}


class Step(NamedTuple):
    """A step of a life, at a share of a month."""

    kind: Literal["use", "late", "change", "end", "return"]
    month: int
    share: float
    plan: str = ""
    interval: Literal["month", "year", ""] = ""
    calls: int = 0


class Life(NamedTuple):
    """A customer who subscribes within the first month, and its steps."""

    plan: str
    is_yearly: bool
    currency: str
    has_coupon: bool
    share: float
    steps: tuple[Step, ...]


KEPT: Sequence[Life] = ()
"""The smallest lives that failed once."""


def draw_life(chance: random.Random) -> Life:
    plans = list(PLANS)

    def draw_step() -> Step:
        kind = chance.choice(["use", "use", "use", "late", "late", "change", "change", "end", "return", "return"])
        interval = chance.choice(["month", "year", ""]) if kind in ("change", "return") else ""
        month, calls = chance.randrange(3), chance.randrange(400)
        return Step(kind, month, chance.random(), chance.choice(plans), interval, calls)  # type: ignore[arg-type]

    plan = chance.choice(plans)
    is_yearly = "annual" in PLANS[plan] and chance.random() < 0.3
    steps = tuple(draw_step() for _ in range(chance.randrange(1, 14)))
    return Life(plan, is_yearly, chance.choice(["usd", "eur"]), chance.random() < 0.4, chance.random() / 2, steps)


class Played(NamedTuple):
    """What became of a life: what all its invoices come to, its segments, and its usage by minute."""

    total: int
    segments: Sequence[Segment]
    used: Counter[int]


async def play_life(of: Sold, name: str, life: Life) -> Played:
    """Have the product keep a life, month by month."""
    begun = JANUARY + life.share * (FEBRUARY - JANUARY)
    coupon = "THIRD" if life.has_coupon else None
    await of.customer(name, life.plan, now=begun, is_yearly=life.is_yearly, currency=life.currency, coupon=coupon)
    used: Counter[int] = Counter()
    async with of.database.reading() as connection:
        customer = await subscription_rows.get_subscriber(connection, name)

    async def close_due(now: float) -> None:
        columns = invoices_table.c
        due = (columns.customer == customer.id, columns.state == invoices.DRAFT, columns.closes_at <= now)
        async with of.database.writing() as connection:
            for row in sorted(await invoices.fetch_invoices(connection, *due), key=lambda row: row.closes_at):
                rated = await invoice_lines.compute_period_lines(connection, row, of.known.meters)
                await invoices.write_lines(connection, row.id, rated.lines, row.currency)

    async def use(when: float, calls: int) -> None:
        if calls:
            await of.use(name, {"calls": calls}, at=when)
            used[int(when) // 60 * 60] += calls

    async def do(step: Step, now: float) -> None:
        is_yearly = {"month": False, "year": True, "": None}[step.interval]
        try:
            async with of.database.writing() as connection:
                if step.kind == "change":
                    await subscriptions.change_subscription(
                        connection, CALLER, name, step.plan, None, settings=of.known, now=now, is_yearly=is_yearly
                    )
                elif step.kind == "end":
                    await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=of.known, now=now)
                else:
                    await subscriptions.create_subscription(
                        *(connection, CALLER, name, step.plan),
                        is_yearly=bool(is_yearly),
                        settings=of.known,
                        now=now,
                    )
        except ChangeRejectedError:
            pass  # A refused step changes nothing.

    for month, (start, end) in enumerate(pairwise(MONTHS)):
        late = [step for step in life.steps if (step.kind, step.month) == ("late", month)]
        steps = sorted(step for step in life.steps if step.month == month and step.kind != "late")
        for step in sorted(steps, key=lambda step: step.share):
            now = start + step.share * (end - start)
            if now <= begun + 60:
                continue
            await close_due(now)
            await (use(now, step.calls) if step.kind == "use" else do(step, now))
        async with of.database.writing() as connection:
            rows = await subscription_rows.fetch_subscriptions(
                connection, subscription_rows.subscriptions.c.customer == customer.id
            )
            (row,) = rows
            is_live = await subscriptions.roll_period(connection, row.id, settings=of.known, now=end)
        await close_due(end + FREEZE)
        if not is_live:
            break
        if month < len(MONTHS) - 2:
            for step in late:
                await use(max(start + step.share * (end - start), begun + 60), step.calls)
    async with of.database.reading(whole=True) as connection:
        loaded = await subscription_rows.load_subscription(
            connection,
            (
                await subscription_rows.fetch_subscriptions(
                    connection, subscription_rows.subscriptions.c.customer == customer.id
                )
            )[0],
        )
        total = sum_amounts(await invoiced_lines.fetch_lines_of_subscription(connection, loaded.row.id))
    return Played(total, loaded.current.segments, used)


def compute_expected(life: Life, played: Played) -> int:
    """What a life costs by the second rater: the sum of the costs of its periods, each less its discount."""
    plans = {
        version: {**choose(terms, life.currency), "meters": {"calls": choose(METERS[version], life.currency)}}
        for version, terms in PLANS.items()
    }
    parts = [PlanPart(one.version, one.is_yearly, *one.span, *one.period, *one.paid) for one in played.segments]
    usage = {
        one.span.start: {
            "calls": {"": sum(n for minute, n in played.used.items() if one.span.start <= minute < one.span.end)}
        }
        for one in played.segments
    }
    costs = second_rater.period_costs(plans, parts, usage, life.currency)
    total = sum(costs.values())
    if life.has_coupon:
        discounted = sorted(costs)[: second_rater.discounted_periods(COUPON)]
        total -= sum(second_rater.discount(COUPON, costs[period], life.currency) for period in discounted)
    return total


def choose(terms: Any, currency: str) -> Any:
    """The terms in one currency."""
    if isinstance(terms, list):
        return [choose(one, currency) for one in terms]
    if not isinstance(terms, dict):
        return terms
    return terms[currency] if currency in terms else {name: choose(value, currency) for name, value in terms.items()}


async def find_fault(of: Sold, name: str, life: Life) -> str | None:
    """Play a life; return how the product and the second rater differ, or None."""
    played = await play_life(of, name, life)
    expected = compute_expected(life, played)
    return None if played.total == expected else f"{played.total} and not {expected}: {played}"


async def shrink(of: Sold, life: Life) -> Life:
    """Return the smallest life that still fails, by leaving out steps and terms."""
    count = 0
    while True:
        smaller = [
            *(life._replace(steps=life.steps[:at] + life.steps[at + 1 :]) for at in range(len(life.steps))),
            *([life._replace(has_coupon=False)] if life.has_coupon else []),
            *([life._replace(is_yearly=False)] if life.is_yearly else []),
        ]
        for one in smaller:
            count += 1
            if await find_fault(of, f"shrunk-{count}", one) is not None:
                life = one
                break
        else:
            return life


def test_random_lives_cost_what_a_second_rater_says(tmp_path: Path, database: str, seed: int) -> None:
    seconds = float(os.environ.get("EDGEPROXY_LIFE_SECONDS", "15"))
    file = tmp_path / "plans.yaml"
    meters = {"calls": {"count": "events"}}
    file.write_text(
        yaml.safe_dump(
            {"plans": {version: {**terms, "meters": {"calls": METERS[version]}} for version, terms in PLANS.items()}}
        )
    )

    async def work() -> int:
        settings: dict[str, Any] = {"plans": str(file), "meters": meters, "coupons": {"THIRD": COUPON}}
        settings["breaker"] = {"enabled": False}
        async with sold(tmp_path, database, "http://127.0.0.1:9", **settings) as (of, _):
            count, until = 0, time.monotonic() + seconds
            while count < len(KEPT) or time.monotonic() < until:
                life = KEPT[count] if count < len(KEPT) else draw_life(random.Random(seed + count))
                why = await find_fault(of, f"life-{count}", life)
                if why is not None:
                    smallest = await shrink(of, life)
                    raise AssertionError(f"seed {seed + count}: {why}\nthe smallest life: {smallest!r}")
                count += 1
            return count

    count = asyncio.run(work())
    print(f"{count} lives from seed {seed} on {database.partition(':')[0]}")
    assert count > len(KEPT)
