"""Faults of customer settings that arrive over the API."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgeproxy.collector.accounts.faults import find_customer_faults
from edgeproxy.config.customers import Customer
from edgeproxy.config.meters import Meter
from edgeproxy.config.tiers import Tier

REPORTED = Meter(count="response_header", header="X-Cost")
METERS = {
    "requests": Meter(count="requests"),
    "seats": Meter(count="holdings"),
    "gigabytes": Meter(count="events", aggregate="average"),
}


def said(settings: dict[str, Any], **meters: Meter) -> list[tuple[str, str]]:
    known: Any = SimpleNamespace(tiers={"pro": Tier()}, meters={**METERS, **meters})
    faults = find_customer_faults(Customer.model_validate({"tier": "pro", **settings}), known)
    return [(fault.field, fault.detail) for fault in faults]


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        ({"meter": "seats"}, []),
        ({"meter": "requests", "per": "day"}, []),
        ({"meter": "seats", "per": "day"}, [("quotas.0.per", "is not of what exists, leave it out")]),
        ({"meter": "requests"}, [("quotas.0.per", "is missing, write day or month")]),
        ({"meter": "gigabytes"}, []),
        ({"meter": "gigabytes", "per": "day"}, [("quotas.0.per", "is not of what exists, leave it out")]),
    ],
)
def test_quotas_of_levels_have_no_period(quota: dict[str, Any], found: list[tuple[str, str]]) -> None:
    wrong = said({"quotas": [{**quota, "included": 5}]})
    assert [one for one in wrong if one[0] == "quotas.0.per"] == found
    assert bool(wrong) == bool(found)


def test_caps_require_the_cost_meter() -> None:
    caps = {"caps": {"session": "100/min"}}
    assert said(caps, cost=REPORTED) == []
    assert [field for field, _ in said(caps)] == ["caps"]
    assert [field for field, _ in said(caps, cost=Meter(count="cost"))] == ["caps"]
    assert said({"caps": {"day": 5}}, cost=Meter(count="cost")) == []
    assert said({"caps": {}}) == []
