"""How a customer stands with a quota, at any moment of its period."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.limits import Quota

HOUR, DAY = 3600, 86400
JUNE = 1_780_272_000 - EPOCH
"""The first of June 2026, of edge time."""


def standing(used: int, included: int = 1000, **more: str) -> QuotaUsage:
    quota = Quota.model_validate({"meter": "tokens", "per": "month", "included": str(included), **more})
    return QuotaUsage(quota, used, period_of(JUNE + 1, "month", ZoneInfo(quota.timezone)))


def test_what_is_told() -> None:
    told = standing(250, cap="hard").to_response(JUNE + 15 * DAY)
    assert told == {
        "quota": "tokens-month",
        "meter": "tokens",
        "per": "month",
        "cap": "hard",
        "limit": 1000,
        "used": 250,
        "percent": 25.0,
        "projected": 500,
        "since": "2026-06-01T00:00:00.000Z",
        "resets": "2026-07-01T00:00:00.000Z",
    }
    seats = Quota.model_validate({"meter": "seats", "included": "3"})
    assert QuotaUsage(seats, 3, None).to_response(JUNE)["projected"] is None
    assert QuotaUsage(seats, 3, None).to_response(JUNE)["quota"] == "seats"


def test_the_first_minutes_say_little_about_a_month() -> None:
    assert standing(1).compute_projection(JUNE + 1) == standing(1).compute_projection(JUNE + HOUR) == 30 * 24
    assert standing(7).compute_projection(JUNE + 30 * DAY) == 7
    assert standing(7).compute_projection(JUNE + 31 * DAY) == 7, "a clock that is ahead makes it no less"


@given(st.integers(0, 1 << 70), st.integers(1, 1 << 52), st.integers(0, 30 * DAY))
def test_no_less_is_foreseen_than_is_used(used: int, included: int, at: int) -> None:
    projected = standing(used, included).compute_projection(JUNE + at)
    assert projected is not None
    assert projected >= used


@pytest.mark.parametrize(("used", "included", "reached"), [(799, 1000, []), (800, 1000, [80]), (1000, 1000, [80, 100])])
def test_thresholds(used: int, included: int, reached: list[int]) -> None:
    assert [percent for percent in (80, 100, 120) if standing(used, included).has_reached(percent)] == reached
    assert all(standing(0, 0).has_reached(percent) for percent in (80, 100, 120)), "of nothing all is used"
    assert standing(0, 0).percent == 100.0
