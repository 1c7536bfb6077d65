"""A month of many customers with faults on the way to Stripe, and kill -9 of the process that closes it at any moment:
each is charged once, what the second rater says."""

import asyncio
import random
from calendar import timegm
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.billing_tables import invoices as table
from tests.collector.billing.second_rater import fee, nearest, usage_charges
from tests.support.closer import UNSETTLED, closer
from tests.support.process import ROOT
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = yaml.safe_load((ROOT / "config/plans.yaml").read_text())["plans"]
JANUARY, FEBRUARY = timegm((2027, 1, 1, 0, 0, 0)), timegm((2027, 2, 1, 0, 0, 0))
MONTH = FEBRUARY - JANUARY
FREEZE = 2 * 86400
PATIENCE = 540.0
"""Seconds that all of it may take."""
FAULTS = ("call_lost", "error_before", "answer_lost", "answer_cut", "error_after", "rate_limited")
LIFE_SECONDS_MAX = 4.0
"""Seconds that the process which closes lives at most, each time but the last."""
DEATHS = {10: 3, 1000: 60}
"""Times that it is killed, by the number of customers."""
UPGRADES = {"free@1": "standard@1", "standard@1": "enterprise@1"}


class Payer:
    """A customer, and what the month should come to, from what was sent alone."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.plan = chance.choice(list(PLANS))
        self.to = UPGRADES.get(self.plan) if chance.random() < 0.3 else None
        self.changes_at = JANUARY + 60 * chance.randrange(1, MONTH // 60 - 60)
        ends = self.changes_at if self.to else FEBRUARY
        self.sent = [(JANUARY + 60 * chance.randrange((ends - JANUARY) // 60), self._used(self.plan, chance))]
        if self.to:
            left = (FEBRUARY - self.changes_at) // 60
            self.sent.append((self.changes_at + 60 * chance.randrange(left), self._used(self.to, chance)))

    def _used(self, plan: str, chance: random.Random) -> dict[str, int]:
        quantities = {}
        for meter, meter_plan in PLANS[plan]["meters"].items():
            most = 400 if meter_plan["included"] == "unlimited" else 3 * int(meter_plan["included"]) // 2
            quantities[meter] = chance.randint(-5, most)
        return quantities

    def expected(self) -> Counter[int]:
        """The totals of the invoices that Stripe has, in cents."""
        spans = [(self.plan, self.sent[0][1])] + ([(self.to, self.sent[1][1])] if self.to else [])
        period = fee(PLANS[spans[-1][0]], seconds=1, of=1)
        for plan, used in spans:
            by_value = {meter: {"": quantity} for meter, quantity in used.items()}
            period += sum(cents for _, cents in usage_charges(PLANS[plan], by_value).values())
        totals = [fee(PLANS[self.plan], seconds=1, of=1), period]
        if self.to:
            left = FEBRUARY - self.changes_at
            old, new = (fee(PLANS[plan], seconds=left, of=MONTH) for plan in (self.plan, self.to))
            totals.append(new - nearest(old))
        return Counter(total for total in totals if total)


@pytest.mark.parametrize("customers", [10, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_a_month_comes_to_what_the_second_rater_says(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, seed: int, customers: int
) -> None:
    chance = random.Random(seed)
    kind = database.partition(":")[0].partition("+")[0]
    payers = [Payer(f"payer-{kind}-{customers}-{number}", chance) for number in range(customers)]
    faults = [{"kind": kind, "probability": 0.02, "method": "POST", "path": "/v1/"} for kind in FAULTS]
    began = monotonic()

    async def live_through(of: Sold) -> None:
        for payer in payers:
            await of.customer(payer.name, payer.plan.partition("@")[0], now=JANUARY)
            at, used = payer.sent[0]
            await of.use(payer.name, used, at=at)
            if payer.to:
                await of.change(payer.name, payer.to, now=payer.changes_at)
                at, used = payer.sent[1]
                await of.use(payer.name, used, at=at)
        await asyncio.to_thread(stripe_sandbox.faults, *faults, seed=seed)
        for deaths in range(DEATHS[customers] + 1):
            if not await left(of):
                break
            await close(of, chance.uniform(0.0, LIFE_SECONDS_MAX) if deaths < DEATHS[customers] else None)
        assert deaths, "it was killed"

    async def close(of: Sold, life: float | None) -> None:
        """Have a process close invoices until it has lived for so long (None: until all are closed), and kill it."""
        process = closer(tmp_path, database, stripe_sandbox.url, FEBRUARY + FREEZE)
        lived = monotonic()
        try:
            while await left(of) and (life is None or monotonic() - lived < life):
                assert process.is_alive()
                assert monotonic() - began < PATIENCE
                await asyncio.sleep(0.05)
        finally:
            process.kill()
            process.join(10.0)

    async def left(of: Sold) -> bool:
        states = sa.select(table.c.state, sa.func.count().label("many")).group_by(table.c.state)
        later = sa.select(table.c.id).where(table.c.period_start > JANUARY)
        async with of.database.reading() as connection:
            charged_sums = {row.state: row.many for row in await connection.execute(states)}
            assert not (await connection.execute(later)).all(), "of one month, and no other is over"
        assert invoices.HELD not in charged_sums
        settled = sum(count for state, count in charged_sums.items() if state not in UNSETTLED)
        return settled < sum(3 if payer.to else 2 for payer in payers)

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (of, _):
            await live_through(of)

    try:
        asyncio.run(work())
    finally:
        stripe_sandbox.faults()
    charged_sums = stripe_sandbox.run(charged)
    for payer in payers:
        assert charged_sums.get(payer.name, Counter()) == payer.expected(), payer.name
    print(
        f"{customers} customers, {sum(map(Counter.total, charged_sums.values()))} invoices: {monotonic() - began:.0f} s"
    )


async def charged(client: Any) -> dict[str, Counter[int]]:
    """The totals of the invoices of each customer at Stripe that are not drafts; nobody is there twice."""
    names = {
        one.id: one.name async for one in (await client.v1.customers.list_async({"limit": 100})).auto_paging_iter()
    }
    names = {number: name for number, name in names.items() if str(name).startswith("payer-")}
    assert len(set(names.values())) == len(names)
    amounts: dict[str, Counter[int]] = {}
    async for one in (await client.v1.invoices.list_async({"limit": 100})).auto_paging_iter():
        if one.total and one.customer in names:
            amounts.setdefault(names[one.customer], Counter())[one.total] += 1
            assert one.status in ("open", "paid"), one.status
    return amounts
