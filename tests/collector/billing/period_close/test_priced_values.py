"""Plans with prices by dimension value have equal invoices, to the cent, by Stripe meters and by invoice items."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

from edgeproxy.collector.billing.rating.periods import period_at
from loadtest.testbed.process import ROOT
from loadtest.testbed.tables_ready import put_tables
from tests.collector.billing.period_close.test_month_by_meters import MODES, by_its_meters, left
from tests.support.billed_month import FAULTS, FREEZE, JANUARY, fetch_charged_totals
from tests.support.era import Era, era
from tests.support.second_rater import fee, usage_charges
from tests.support.stripe_sandbox import Sandbox

LONG = (pytest.mark.soak, pytest.mark.timeout(1800))
SHIPPED = yaml.safe_load((ROOT / "config/plans.yaml").read_text())["plans"]
PLANS: dict[str, Any] = {
    **{version: {key: plan[key] for key in plan.keys() - {"tier"}} for version, plan in SHIPPED.items()},
    # A plan without included amounts, with two dimensions, and with values that are invalid in Stripe's event names.
    "basic@1": {
        "fee": "9",
        "meters": {
            "llm_tokens": {
                "included": "0",
                "price": "0.02/1000",
                "by": {"dimension": "model", "prices": {"gpt-4.1/mini:x": "0.001/1000"}},
            },
            "api_calls": {
                "included": "0",
                "price": "0.0015",
                "by": {"dimension": "class", "prices": {"a": "0.0005", "large": "0"}},
            },
        },
    },
}
for plan in PLANS.values():
    for meter_plan in plan["meters"].values():
        meter_plan.pop("routes", None)
MODELS = ("large", "small", "medium", "gpt-4.1/mini:x", "")
CLASSES = ("a", "b", "large", "")
MONTHS = [JANUARY]
while len(MONTHS) < 13:
    MONTHS.append(period_at(MONTHS[-1], None).end)

Used = dict[str, dict[str, int]]
"""Usage by meter, then by the value of its dimension."""


class Payer:
    """A customer with a plan, and its usage in each month."""

    def __init__(self, number: int, chance: random.Random, months: int) -> None:
        self.name, self.plan = f"payer-{number}", list(PLANS)[-1 - number % len(PLANS)]
        self.used: list[Used] = [self._use(chance) for _ in range(months)]
        self.at = [chance.randrange(27 * 1440) * 60 for _ in range(months)]

    def _use(self, chance: random.Random) -> Used:
        used: Used = {}
        for meter, meter_plan in PLANS[self.plan]["meters"].items():
            included = meter_plan.get("included", 5000)
            most = 400 if included == "unlimited" else 3 * int(included) // 2
            values = {"llm_tokens": MODELS, "api_calls": CLASSES}.get(meter, ("",))
            used[meter] = {value: chance.choice([0, chance.randint(-5, most)]) for value in values}
        return used

    def expected(self) -> list[int]:
        """Return the expected totals of the invoices at Stripe, in cents."""
        whole = fee(PLANS[self.plan], seconds=1, of=1)
        return [total for total in (whole, *(whole + cents for cents in self.charges())) if total]

    def charges(self) -> list[int]:
        """Return the charges for the usage of each month, in cents."""
        return [sum(cents for _, cents in usage_charges(PLANS[self.plan], used).values()) for used in self.used]


async def use(timeline: Era, name: str, used: Used, at: float) -> None:
    """Report usage of all meters and values."""
    for meter, values in used.items():
        dimension = {"llm_tokens": "model", "api_calls": "class"}.get(meter, "")
        for value, quantity in values.items():
            await timeline.of.use(name, {meter: quantity}, at=at, split={dimension: value} if value else {})


async def live(timeline: Era, payers: list[Payer], months: int) -> None:
    """Create customers, report their usage, and close the given number of months."""
    for payer in payers:
        await timeline.of.customer(payer.name, payer.plan.partition("@")[0], now=JANUARY)
    await timeline.turns(3)
    for month in range(months):
        for payer in payers:
            await use(timeline, payer.name, payer.used[month], MONTHS[month] + payer.at[month])
        await timeline.to(MONTHS[month + 1] + 5)
        await timeline.turns(6)
        await timeline.to(MONTHS[month + 1] + FREEZE)
        while await left(timeline, (month + 2) * len(payers)):
            await timeline.turns(1, 601)


@pytest.mark.parametrize(("customers", "months"), [(4, 1), pytest.param(20, 12, marks=LONG)])
def test_prices_by_dimension_value_charge_equally_by_meters_and_items(
    own_sandbox: Sandbox, new_sandbox: Sandbox, tmp_path: Path, seed: int, customers: int, months: int
) -> None:
    chance = random.Random(seed)
    payers = [Payer(number, chance, months) for number in range(customers)]
    faults = [{"kind": kind, "probability": 0.02, "method": "POST", "path": "/v1/"} for kind in FAULTS]
    began = monotonic()
    file = tmp_path / "plans.yaml"
    file.write_text(yaml.safe_dump({"plans": PLANS}))

    async def work(sandbox: Sandbox, mode: str) -> None:
        where = put_tables(f"sqlite:///{tmp_path}/{mode}.db")
        async with era(tmp_path, where, sandbox, JANUARY, plans=str(file), collection=mode) as timeline:
            await asyncio.to_thread(sandbox.faults, *faults, seed=seed)
            await live(timeline, payers, months)

    by_stripe: dict[str, Counter[str]] = {}
    for mode, sandbox in zip(MODES, (own_sandbox, new_sandbox), strict=True):
        try:
            asyncio.run(work(sandbox, mode))
        finally:
            sandbox.faults()
        charged, by_stripe[mode] = sandbox.run(fetch_charged_totals), sandbox.run(by_its_meters)
        for payer in payers:
            assert charged.get(payer.name, Counter()) == Counter(payer.expected()), (mode, payer.name)
    for payer in payers:
        # Invoice items deduct the included amounts, so Stripe's own lines are at least the charges.
        assert by_stripe["meters"].get(payer.name, 0) >= sum(payer.charges()), payer.name
    assert not +by_stripe["invoice_items"]
    print(f"{customers} customers, {months} months: {monotonic() - began:.0f} s")
