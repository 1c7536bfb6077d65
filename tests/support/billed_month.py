"""A month of customers with plans, usage and changes, and its charges by the second rater."""

import random
from calendar import timegm
from collections import Counter
from typing import Any

import yaml

from loadtest.testbed.process import ROOT
from tests.support.second_rater import fee, nearest, usage_charges

PLANS = yaml.safe_load((ROOT / "loadtest/testbed/plans.yaml").read_text())["plans"]
JANUARY, FEBRUARY = timegm((2027, 1, 1, 0, 0, 0)), timegm((2027, 2, 1, 0, 0, 0))
MONTH = FEBRUARY - JANUARY
FREEZE = 2 * 86400
FAULTS = ("call_lost", "error_before", "answer_lost", "answer_cut", "error_after", "rate_limited")
UPGRADES = {"free@1": "standard@1", "standard@1": "enterprise@1"}


class Payer:
    """A customer, and the expected charges of the month, computed only from the sent data."""

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
        """Return the expected totals of the invoices at Stripe, in cents."""
        spans = [(self.plan, self.sent[0][1])] + ([(self.to, self.sent[1][1])] if self.to else [])
        period = fee(PLANS[spans[-1][0]], seconds=1, of=1)
        for plan, used in spans:
            by_value = {meter: {"": quantity} for meter, quantity in used.items()}
            period += sum(cents for _, cents in usage_charges(PLANS[plan], by_value).values())
        totals = [fee(PLANS[self.plan], seconds=1, of=1), period]
        if self.to:
            left = FEBRUARY - self.changes_at
            old, new = (fee(PLANS[plan], seconds=left, of=MONTH) for plan in (self.plan, self.to))
            totals.append(new - nearest(old, "usd"))
        return Counter(total for total in totals if total)


async def fetch_charged_totals(client: Any) -> dict[str, Counter[int]]:
    """Return the totals of each customer's finalized invoices at Stripe. Names of customers must be unique."""
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
