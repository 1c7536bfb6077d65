"""The idle lifetime of connections is learnt only from the connections that the endpoint closed while idle."""

import pytest

from edgeproxy.edge.proxy.upstreams.idle_lifetime import FORGET_SECONDS, IdleLifetime

UNKNOWN = float("inf")


def learnt(*closings: tuple[float, float]) -> float:
    """Return the lifetime learnt from these closings (time, seconds idle)."""
    kept = IdleLifetime()
    for when, idle in closings:
        kept.record_close(idle, when)
    return kept.seconds


@pytest.mark.parametrize(
    ("closings", "seconds"),
    [
        ([(10, 5.0), (20, 5.01)], UNKNOWN),
        ([(10, 5.0), (20, 5.01), (30, 5.02)], 4.0),
        ([(10, 2.0), (20, 2.9), (30, 2.4)], 1.0),
        ([(10, 0.001), (11, 0.003), (12, 0.0)], 0.0),
        ([(10, 5.0), (20, 0.3), (30, 5.0)], UNKNOWN),
        ([(10, 0.3), (20, 5.0), (30, 5.1), (40, 5.0)], 4.0),
        ([(10, 5.0), (10.1, 5.0), (10.2, 5.0), (10.3, 5.0)], UNKNOWN),
    ],
    ids=["two", "three", "one that looks seldom", "at once", "no rule", "after an exception", "all at one moment"],
)
def test_three_closings_that_agree_tell(closings: list[tuple[float, float]], seconds: float) -> None:
    assert learnt(*closings) == pytest.approx(seconds)


def test_close_of_a_young_connection_is_no_idle_timeout() -> None:
    kept = IdleLifetime()
    for when in range(10, 60, 10):
        kept.record_close(1.0, when, oldest=9.0)
    assert kept.seconds == UNKNOWN


def test_idle_lifetime_estimate_expires_and_is_learnt_again() -> None:
    kept = IdleLifetime()
    for when in (10, 20, 30):
        kept.record_close(5.0, when)
    kept.sweep(29 + FORGET_SECONDS)
    assert kept.seconds == 4.0
    kept.sweep(30 + FORGET_SECONDS)
    kept.record_close(5.0, 400)
    assert kept.seconds == UNKNOWN


def test_trusted_idle_time_follows_observed_openings_and_closings() -> None:
    kept = IdleLifetime()
    assert kept.trusted_seconds == pytest.approx(0.4), "of an endpoint of which nothing is known"
    kept.record_open(5.0)
    kept.record_open(1.0)
    assert kept.trusted_seconds == pytest.approx(4.0)
    kept.record_close(5.0, 10.0)
    assert kept.trusted_seconds == pytest.approx(4.0)
    kept.record_close(0.001, 20.0, oldest=9.0)
    assert kept.trusted_seconds < 0.001
