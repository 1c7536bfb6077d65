"""What a part of a customer's usage costs by itself."""

import pytest

from edgeproxy.collector.billing.rating.usage_value import compute_own_value
from edgeproxy.config.collector.catalog import Plan

PRICES: dict[str, dict[str, object]] = {
    "calls": {"included": 1000, "price": "0.10"},
    "packs": {"included": 50, "price": "2", "package": 10},
    "tokens": {"price": "5/1M", "by": {"dimension": "model", "prices": {"small": "1/1M"}}},
    "steps": {"tiers": [{"up_to": 10, "price": "0.20"}, {"up_to": "none", "price": "0.05"}]},
    "seats": {"included": "unlimited"},
}
PLAN = Plan.model_validate({"fee": "99", "meters": PRICES})


@pytest.mark.parametrize(
    ("used", "cents"),
    [
        ({}, 0),
        ({"calls": {"": 20}}, 200),
        ({"calls": {"": -20}}, 0),
        ({"packs": {"": 11}}, 400),
        ({"tokens": {"small": 3_000_000, "large": 1_000_000, "": 1_000_000}}, 300 + 1000),
        ({"steps": {"": 12}}, 200 + 10),
        ({"seats": {"": 9}}, 0),
        ({"unknown": {"": 9}, "calls": {"": 1}}, 10),
    ],
)
def test_usage_costs_what_the_plan_says_as_though_nothing_were_included(
    used: dict[str, dict[str, int]], cents: int
) -> None:
    assert compute_own_value(PLAN, used) == cents
