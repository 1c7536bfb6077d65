"""Shares in percent never claim that all or nothing is used where it is not."""

from edgeproxy.base.percent import compute_percent


def test_percentage_is_truncated_and_a_little_is_not_nothing() -> None:
    assert compute_percent(99_999, 100_000) == 99.99
    assert compute_percent(1, 100_000) == 0.01
    assert [compute_percent(used, 200) for used in (0, 100, 200, 250)] == [0.0, 50.0, 100.0, 125.0]
