"""The status of a customer's quota at any time of its period."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.limits import Quota

DAY = 86400
JUNE = 1_780_272_000 - EPOCH
"""The first of June 2026, in edge time."""


def standing(used: int, included: int = 1000, **more: str) -> QuotaUsage:
    quota = Quota.model_validate({"meter": "tokens", "per": "month", "included": str(included), **more})
    return QuotaUsage(quota, used, period_of(JUNE + 1, "month", ZoneInfo(quota.timezone)))


def test_response_states_limit_use_and_projection() -> None:
    projected = standing(250).compute_projection([10, 20, 30], JUNE + 15 * DAY)
    told = standing(250, cap="hard").to_response(projected)
    assert told == {
        "quota": "tokens-month",
        "meter": "tokens",
        "per": "month",
        "timezone": "UTC",
        "cap": "hard",
        "limit": 1000,
        "used": 250,
        "percent": 25.0,
        "projected": {"days": 3, "low": 400, "high": 700},
        "since": "2026-06-01T00:00:00.000Z",
        "resets": "2026-07-01T00:00:00.000Z",
    }
    seats = Quota.model_validate({"meter": "seats", "included": "3"})
    assert QuotaUsage(seats, 3, None).compute_projection([], JUNE) is None
    assert QuotaUsage(seats, 3, None).to_response(None)["quota"] == "seats"


def test_projection_spans_the_lowest_and_highest_day_once_there_are_three() -> None:
    at = JUNE + 20 * DAY
    assert standing(100).compute_projection([5, 9], at) == {"days": 2, "low": None, "high": None}
    assert standing(100).compute_projection([5, 9, 7], at) == {"days": 3, "low": 150, "high": 190}
    late = standing(100).compute_projection([5, 9, 7], JUNE + 31 * DAY)
    assert late == {"days": 3, "low": 100, "high": 100}, "a clock that is ahead makes it no less"


@given(st.integers(0, 1 << 70), st.lists(st.integers(-5, 1 << 52), min_size=3, max_size=7), st.integers(0, 30 * DAY))
def test_projection_is_never_below_the_use(used: int, days: list[int], at: int) -> None:
    projected = standing(used).compute_projection(days, JUNE + at)
    assert projected is not None
    assert projected["low"] is not None
    assert projected["high"] is not None
    assert used <= projected["low"] <= projected["high"]


@pytest.mark.parametrize(("used", "included", "reached"), [(799, 1000, []), (800, 1000, [80]), (1000, 1000, [80, 100])])
def test_threshold_is_reached_at_its_percentage(used: int, included: int, reached: list[int]) -> None:
    assert [percent for percent in (80, 100, 120) if standing(used, included).has_reached(percent)] == reached
    assert all(standing(0, 0).has_reached(percent) for percent in (80, 100, 120)), "of nothing all is used"
    assert standing(0, 0).percent == 100.0
