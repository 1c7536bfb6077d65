"""The use of a rate limit, computed from the requests of each minute."""

import pytest

from edgeproxy.collector.ledger.customer_limits import LimitUse, compute_current_use, compute_use
from edgeproxy.config.limits import Limit

NOW = 1_800_000_000 // 3600 * 3600 + 30


def limit(rate: str, **more: str) -> Limit:
    return Limit.model_validate({"name": "l", "rate": rate, **more})


def minutes(*counts: int) -> dict[int, int]:
    """Return the request counts of the last whole minutes, latest first."""
    return {NOW // 60 * 60 - (ago + 1) * 60: count for ago, count in enumerate(counts)}


def test_use_is_the_last_whole_window_and_peak_is_the_fullest() -> None:
    counted = minutes(5, 20, 30, 0, 7)
    assert compute_use(limit("100/min"), counted, NOW) == LimitUse(5, 30)
    assert compute_use(limit("100/2min"), counted, NOW) == LimitUse(25, 50)
    assert compute_use(limit("100/h"), counted, NOW) == LimitUse(62, 62)
    assert compute_use(limit("100/min"), {NOW // 60 * 60: 9}, NOW) == LimitUse(0, 0), "the minute goes on"


@pytest.mark.parametrize("odd", [limit("10/s"), limit("10/90s"), limit("100/min", scope="key")])
def test_use_is_unknown_for_limits_that_minutes_cannot_show(odd: Limit) -> None:
    assert compute_use(odd, minutes(5), NOW) == LimitUse(None, None)
    assert compute_current_use(odd, minutes(5), NOW) is None
    assert compute_use(limit("100/min"), None, NOW) == LimitUse(None, None)


def test_current_use_includes_the_running_minute_and_excludes_the_oldest() -> None:
    begun = NOW // 60 * 60
    counted = {begun: 9, begun - 60: 4, begun - 120: 2}
    assert compute_current_use(limit("100/min"), counted, NOW) == 9
    assert compute_current_use(limit("100/2min"), counted, NOW) == 13
    assert compute_current_use(limit("100/min"), None, NOW) is None
