"""The age of a second factor decides about sensitive actions."""

import pytest

from edgeproxy.config.collector.operators import is_factor_recent

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("factor_at", "recent"),
    [
        (None, False),
        (NOW, True),
        (NOW - 599, True),
        (NOW - 601, False),
        (NOW + 30, True),
        (NOW + 31, False),
        (float("inf"), False),
        (float("nan"), False),
    ],
)
def test_a_second_factor_counts_for_ten_minutes_and_none_from_the_future(factor_at, recent):
    assert is_factor_recent(factor_at, NOW) is recent
