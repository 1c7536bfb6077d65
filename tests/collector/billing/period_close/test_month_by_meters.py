"""The month of `test_month.py` has equal invoices, to the cent, by Stripe meters and by invoice items."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.billing_tables import subscriptions
from loadtest.testbed.tables_ready import put_tables
from tests.support.billed_month import FAULTS, FEBRUARY, FREEZE, JANUARY, PLANS, Payer, fetch_charged_totals
from tests.support.closer import meter_closer
from tests.support.era import Era, era
from tests.support.second_rater import usage_charges
from tests.support.stripe_sandbox import Sandbox

LONG = (pytest.mark.soak, pytest.mark.timeout(1800))
MODES = ("meters", "invoice_items")
PATIENCE = 1500.0
"""The time limit of a test in seconds."""
LIFE_SECONDS_MAX = 1.5
"""The maximum number of seconds between kills."""
STOPS = 20
"""The number of stops of the clock. At each, Stripe receives the plan changes up to then."""


async def left(of: Era, expected: int) -> bool:
    """Return whether fewer than `expected` invoices have left the states DRAFT and CLOSING. No invoice may be held."""
    unsettled = table.c.state.in_((invoices.DRAFT, invoices.CLOSING))
    async with of.of.database.reading() as connection:
        held = (await connection.execute(sa.select(table.c.held_why).where(table.c.held_why.is_not(None)))).all()
        count = (await connection.execute(sa.select(sa.func.count()).select_from(table).where(~unsettled))).scalar_one()
    assert not held
    return bool(count < expected)


async def by_its_meters(client: Any) -> Counter[str]:
    """Return the cents of each customer on Stripe's own lines for metered prices, replaced prices included."""
    names = {
        one.id: one.name async for one in (await client.v1.customers.list_async({"limit": 100})).auto_paging_iter()
    }
    cents: Counter[str] = Counter()
    async for invoice in (await client.v1.invoices.list_async({"limit": 100})).auto_paging_iter():
        lines = await client.v1.invoices.line_items.list_async(invoice.id, {"limit": 100})
        async for line in lines.auto_paging_iter():
            if "price_details" in line.pricing:
                cents[names[invoice.customer]] += line.amount
    return cents


@pytest.mark.parametrize("customers", [2, pytest.param(1000, marks=LONG)])
def test_month_by_meters_and_by_items_equals_the_second_rater(
    own_sandbox: Sandbox, tmp_path: Path, seed: int, customers: int
) -> None:
    """Each payer has two customers, one in each mode."""
    chance = random.Random(seed)
    payers = [Payer(f"payer-{customers}-{number}", chance) for number in range(customers)]
    faults = [{"kind": kind, "probability": 0.02, "method": "POST", "path": "/v1/"} for kind in FAULTS]
    began = monotonic()

    async def begin(of: Era, mode: str) -> None:
        by_meters = of.of.known
        assert by_meters.billing is not None
        of.of.known = by_meters.model_copy(
            update={"billing": by_meters.billing.model_copy(update={"collection": mode})}
        )
        for payer in payers:
            await of.of.customer(f"{payer.name}-{mode}", payer.plan.partition("@")[0], now=JANUARY)
            for at, used in payer.sent:
                await of.of.use(f"{payer.name}-{mode}", used, at=at)
        of.of.known = by_meters

    async def work() -> None:
        where = put_tables(f"sqlite:///{tmp_path}/ledger.db")
        async with era(tmp_path, where, own_sandbox, JANUARY) as of:
            await asyncio.to_thread(own_sandbox.faults, *faults, seed=seed)
            for mode in MODES:
                await begin(of, mode)
            await of.turns(3)
            changing = sorted((payer for payer in payers if payer.to), key=lambda payer: payer.changes_at)
            together = -(-len(changing) // STOPS) or 1
            for first in range(0, len(changing), together):
                some = changing[first : first + together]
                await of.to(some[-1].changes_at)
                for payer in some:
                    for mode in MODES:
                        await of.of.change(f"{payer.name}-{mode}", payer.to or "", now=payer.changes_at)
                await of.turns(3)
            await of.to(FEBRUARY + 5)
            await of.turns(6)
            await of.to(FEBRUARY + FREEZE)
            while await left(of, sum(3 if payer.to else 2 for payer in payers) * len(MODES)):
                assert monotonic() - began < PATIENCE
                await of.turns(1, 601)

    try:
        asyncio.run(work())
    finally:
        own_sandbox.faults()
    charged_sums = own_sandbox.run(fetch_charged_totals)
    for payer in payers:
        both = [charged_sums.get(f"{payer.name}-{mode}", Counter()) for mode in MODES]
        assert both == [payer.expected()] * len(MODES), payer.name
    by_stripe = own_sandbox.run(by_its_meters)
    for payer in payers:
        plans = [payer.plan, payer.to] if payer.to else [payer.plan]
        paid = [number for number, plan in enumerate(plans) if not plan.startswith("free")]
        expected = sum(
            cents
            for number in paid
            for _, cents in usage_charges(
                PLANS[plans[number]], {meter: {"": used} for meter, used in payer.sent[number][1].items()}
            ).values()
        )
        usage = [by_stripe.get(f"{payer.name}-{mode}", 0) for mode in MODES]
        assert usage == [expected, 0], f"{payer.name}: usage is charged by what Stripe has counted"
    print(
        f"{customers} customers, {sum(map(Counter.total, charged_sums.values()))} invoices: {monotonic() - began:.0f} s"
    )


@pytest.mark.parametrize(
    ("database", "customers"),
    [("postgresql", 3), pytest.param("sqlite", 200, marks=LONG), pytest.param("postgresql", 200, marks=LONG)],
    indirect=["database"],
)
def test_two_killed_collectors_charge_a_month_by_meters_once(
    new_sandbox: Sandbox, tmp_path: Path, database: str, seed: int, customers: int
) -> None:
    """A collector is killed (kill -9) at a random time, and the other one continues its work."""
    chance = random.Random(seed)
    payers = [Payer(f"payer-{number}", chance) for number in range(customers)]
    for payer in payers:  # No payer changes its plan in the month.
        payer.to, payer.sent = None, payer.sent[:1]
    faults = [{"kind": kind, "probability": 0.02, "method": "POST", "path": "/v1/"} for kind in FAULTS]
    paying = sum(not payer.plan.startswith("free") for payer in payers)
    until = monotonic() + PATIENCE
    deaths = 0

    def start() -> Any:
        return meter_closer(tmp_path, database, new_sandbox.port)

    async def live(is_over: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Run both collectors until `is_over`, and kill one at times. The clock advances by `seconds` in each round."""
        nonlocal deaths
        running = [start(), start()]
        lives = 0
        try:
            while not await is_over():
                assert monotonic() < until
                await asyncio.sleep(chance.uniform(0.0, LIFE_SECONDS_MAX))
                assert all(process.is_alive() for process, _ in running)
                if lives % 2 == 0:
                    one = chance.randrange(2)
                    process, _ = running[one]
                    process.kill()
                    await asyncio.to_thread(process.join, 10.0)
                    running[one] = start()
                    deaths += 1
                else:  # Before the next kill some work completes, however busy the machine is.
                    for _, worked in running:
                        assert await asyncio.to_thread(worked.wait, 60.0)
                lives += 1
                await asyncio.to_thread(new_sandbox.advance, seconds)
        finally:
            for process, _ in running:
                process.kill()
                process.join(10.0)

    async def work() -> None:
        async with era(tmp_path, database, new_sandbox, JANUARY) as of:

            async def has_all(table_of: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> bool:
                """Return whether each paying customer has a row with a Stripe id."""
                statement = sa.select(sa.func.count()).where(table_of.c.stripe_id.is_not(None), *conditions)
                async with of.of.database.reading() as connection:
                    return bool((await connection.execute(statement)).scalar_one() == paying)

            for payer in payers:
                await of.of.customer(payer.name, payer.plan.partition("@")[0], now=JANUARY)
                at, used = payer.sent[0]
                await of.of.use(payer.name, used, at=at)
            await asyncio.to_thread(new_sandbox.faults, *faults, seed=seed)
            await live(lambda: has_all(subscriptions), 5)
            of.follow()
            await of.to(FEBRUARY + 5)
            await live(lambda: has_all(table, table.c.kind == "period"), 5)
            of.follow()
            await of.to(FEBRUARY + FREEZE)

            async def is_closed() -> bool:
                return not await left(of, 2 * customers)

            await live(is_closed, 601)

    try:
        asyncio.run(work())
    finally:
        new_sandbox.faults()
    charged_sums = new_sandbox.run(fetch_charged_totals)
    for payer in payers:
        assert charged_sums.get(payer.name, Counter()) == payer.expected(), payer.name
    assert deaths
    print(f"{customers} customers, {deaths} kills, {monotonic() - until + PATIENCE:.0f} s")
