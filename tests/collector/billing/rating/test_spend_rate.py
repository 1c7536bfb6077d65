"""The cost of an hour of usage, the usual cost, and the threshold of an unusual one."""

import pytest

from edgeproxy.collector.billing.rating.spend_rate import (
    compute_included_value,
    compute_usual_value,
    compute_value,
    get_highest_price,
    is_spike,
)
from edgeproxy.config.collector.billing import BreakerThresholds
from edgeproxy.config.collector.catalog import MeterPrice, Plan

PLAN = Plan.model_validate(
    {"fee": "73", "meters": {"calls": {"included": 1000, "price": "0.10"}, "seats": {"included": 3, "cap": "hard"}}}
)


@pytest.mark.parametrize(
    ("price", "cents"),
    [
        ({"included": 5, "price": "0.10"}, 10),
        ({"included": 5, "cap": "soft"}, 0),
        ({"included": 5, "price": "0.50", "package": 10}, 5),
        ({"tiers": [{"up_to": 10, "price": "0.20"}, {"up_to": "none", "price": "0.05"}]}, 20),
        ({"included": 5, "price": "0.10", "by": {"dimension": "model", "prices": {"large": "0.30"}}}, 30),
    ],
)
def test_a_unit_is_worth_the_highest_price_that_it_can_have(price: dict[str, object], cents: int) -> None:
    assert get_highest_price(MeterPrice.model_validate(price)) == cents * 10**12


def test_included_usage_has_the_value_of_its_price() -> None:
    assert compute_value(PLAN, {"calls": {"": 20}, "seats": {"": 9}, "unknown": {"": 5}}) == 200
    assert compute_value(PLAN, {"calls": {"": -20}}) == 0


def test_each_value_is_worth_its_own_price() -> None:
    by = {"dimension": "model", "prices": {"large": "0.30", "small": "0.04"}}
    plan = Plan.model_validate({"fee": "9", "meters": {"tokens": {"included": 100, "price": "0.10", "by": by}}})
    assert compute_value(plan, {"tokens": {"large": 10, "small": 100, "other": 3, "": 2}}) == 300 + 400 + 50


def test_usual_spend_is_the_weekly_median_or_the_included_plan_value() -> None:
    weeks = [{"calls": {"": 10}}, {"calls": {"": 900}}, {"calls": {"": 20}}, {"calls": {"": 30}}]
    assert compute_usual_value(PLAN, weeks) == 200
    assert compute_usual_value(PLAN, []) == compute_included_value(PLAN) == 10000 // 730
    dear = PLAN.model_copy(update={"fee": 73000})
    assert compute_included_value(dear) == 100, "an hour's part of the fee, where that is more"


@pytest.mark.parametrize(
    ("spent", "usual", "expected"), [(499, 0, False), (500, 0, True), (500, 100, False), (501, 100, True)]
)
def test_spend_spike_exceeds_a_factor_and_a_minimum(spent: int, usual: int, expected: bool) -> None:
    assert is_spike(spent, usual, BreakerThresholds()) is expected
