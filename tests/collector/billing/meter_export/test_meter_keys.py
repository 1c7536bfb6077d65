"""Keys of Stripe's meters: one for a meter, and one for each priced value of its dimension."""

import pytest

from edgeproxy.collector.billing.meter_export.meter_events import EVENT_NAME_MAX, event_name
from edgeproxy.collector.billing.meter_export.meter_keys import (
    UsageSource,
    build_key,
    fold_values,
    get_meter,
    list_prices,
    list_sources,
    list_unit_prices,
)
from edgeproxy.config.collector.catalog import Plan

PLAN = Plan.model_validate(
    {
        "fee": "9",
        "meters": {
            "calls": {"included": "5", "price": "0.5"},
            "tokens": {
                "included": "100",
                "price": "0.02",
                "by": {"dimension": "model", "prices": {"large": "0.03", "a:b": "0"}},
            },
        },
    }
)
CALLS, TOKENS = PLAN.meters["calls"], PLAN.meters["tokens"]
LISTED = ("large", "a:b")


def test_listed_values_have_keys_and_the_meter_has_the_rest() -> None:
    assert dict(list_sources("calls", CALLS)) == {"calls": UsageSource("calls")}
    assert dict(list_sources("tokens", TOKENS)) == {
        "tokens:large": UsageSource("tokens", "model", "large", LISTED),
        "tokens:a:b": UsageSource("tokens", "model", "a:b", LISTED),
        "tokens": UsageSource("tokens", "model", "", LISTED),
    }
    assert [get_meter(build_key("tokens", value)) for value in (*LISTED, "")] == ["tokens"] * 3


def test_price_of_a_value_charges_from_the_first_unit_on() -> None:
    prices = list_prices(PLAN)
    assert prices["calls"] is CALLS
    split = {key: (price.included, price.price, price.by) for key, price in prices.items() if key != "calls"}
    cent = 10**12
    assert split == {
        "tokens:large": (0, 3 * cent, None),
        "tokens:a:b": (0, 0, None),
        "tokens": (0, 2 * cent, None),
    }
    assert list_unit_prices(PLAN) == {"tokens:large": 3 * cent, "tokens:a:b": 0, "tokens": 2 * cent}


def test_quantities_of_values_without_a_price_are_one() -> None:
    assert fold_values("tokens", TOKENS, {"large": 3, "x": 4, "": 5}) == {"tokens:large": 3, "tokens": 9}
    assert fold_values("calls", CALLS, {"": 5}) == {"calls": 5}


@pytest.mark.parametrize("value", ["large", "gpt-4.1/mini:x", "~" * 64, "x" * 64])
def test_event_name_of_any_value_is_short_and_its_own(value: str) -> None:
    for meter in ("tokens", "m" * 64):
        name = event_name(build_key(meter, value))
        assert name.startswith(f"edgeproxy_{meter}_")
        assert len(name) <= EVENT_NAME_MAX
        assert set(name.removeprefix(f"edgeproxy_{meter}_")) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert name != event_name(build_key(meter, value + "."))
    assert event_name("tokens") == "edgeproxy_tokens"
