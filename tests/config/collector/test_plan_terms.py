"""A written plan is read back unchanged, so a change of one price changes nothing else."""

import random
from pathlib import Path

import orjson
import pytest

from edgeproxy.config.collector.catalog import Plan, serialize_plan
from edgeproxy.config.collector.load import load_plans_text
from edgeproxy.config.collector.plan_terms import format_amount, format_price, write_terms
from loadtest.testbed.process import ROOT
from tests.support.random_plans import draw_terms


def read(terms: object, currency: str = "usd") -> Plan:
    return load_plans_text("plans", orjson.dumps({"currency": currency, "plans": {"one@1": terms}}).decode()).plans[
        "one@1"
    ]


@pytest.mark.parametrize("file", ["config/plans.yaml", "loadtest/testbed/plans.yaml"])
def test_plans_of_files_are_written_as_they_are_meant(file: str) -> None:
    for plan in load_plans_text("plans", Path(ROOT / file).read_text()).plans.values():
        assert serialize_plan(read(write_terms(plan))) == serialize_plan(plan)


def test_a_plan_that_counts_nothing_is_written_too() -> None:
    plan = read({"fee": "9", "quantity": {"max": "12"}})
    assert serialize_plan(read(write_terms(plan))) == serialize_plan(plan)


def test_random_plans_in_several_currencies_are_written_as_they_are_meant() -> None:
    for seed in range(300):
        plan = read(draw_terms(random.Random(seed)), "jpy")
        assert serialize_plan(read(write_terms(plan), plan.currency)) == serialize_plan(plan), seed


def test_amounts_and_prices_are_short() -> None:
    assert [format_amount(cents) for cents in (0, 9900, 9950, 9905)] == ["0", "99", "99.50", "99.05"]
    assert [format_amount(1500, code) for code in ("jpy", "kwd")] == ["1500", "1.50"]
    parts = (0, 10**13, 10**9, 5 * 10**8, 4 * 10**6)
    assert [format_price(part) for part in parts] == ["0", "0.1", "0.01/1000", "0.005/1000", "0.04/1M"]
