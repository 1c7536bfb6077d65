"""A month of many customers with faults on the way to Stripe, and kill -9 of the closing process at any moment.

Each customer is charged once, by the second rater's amount.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.billing_tables import invoices as table
from tests.support.billed_month import FAULTS, FEBRUARY, FREEZE, JANUARY, Payer, fetch_charged_totals
from tests.support.closer import UNSETTLED, closer
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import Sandbox

PATIENCE = 540.0
"""Seconds that all of it may take."""
LIFE_SECONDS_MAX = 4.0
"""Seconds that the process which closes lives at most, each time but the last."""
DEATHS = {10: 3, 1000: 60}
"""Times that it is killed, by the number of customers."""


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("customers", DEATHS)
def test_month_of_invoices_equals_the_second_rater(
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
        assert deaths, "at least one run was killed"

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
    charged_sums = stripe_sandbox.run(fetch_charged_totals)
    for payer in payers:
        assert charged_sums.get(payer.name, Counter()) == payer.expected(), payer.name
    print(
        f"{customers} customers, {sum(map(Counter.total, charged_sums.values()))} invoices: {monotonic() - began:.0f} s"
    )
