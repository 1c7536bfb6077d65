"""The pauses before an unavailable node is tried again."""

import random

from edgeproxy.hub.breaker import FIRST_RETRY_SECONDS, RETRY_SECONDS_MAX, STEADY_SECONDS, Breaker


def test_pauses_grow_while_attempts_are_in_vain_and_differ_from_host_to_host(seed: int) -> None:
    chance = random.Random(seed)
    breakers = [Breaker(chance) for _ in range(100)]
    assert {breaker.state for breaker in breakers} == {"open"}
    for times in range(10):
        pauses = []
        for breaker in breakers:
            breaker.probe()
            assert breaker.state == "half-open"
            pauses.append(breaker.open(1000.0 + times))
            assert breaker.state == "open"
        mean = min(RETRY_SECONDS_MAX, FIRST_RETRY_SECONDS * 2**times)
        assert mean * 0.5 <= min(pauses) < mean * 0.75
        assert mean * 1.25 < max(pauses) <= mean * 1.5


def test_breaker_pause_grows_if_a_node_fails_again_soon() -> None:
    breaker, now = Breaker(random.Random(1)), 1000.0
    pauses = []
    for _ in range(8):
        breaker.probe()
        breaker.close(now)
        assert breaker.state == "closed"
        now += STEADY_SECONDS / 2
        pauses.append(breaker.open(now))
    assert pauses[0] <= FIRST_RETRY_SECONDS * 1.5
    assert pauses[-1] >= RETRY_SECONDS_MAX / 2


def test_breaker_pause_is_short_after_a_steady_connection() -> None:
    breaker = Breaker(random.Random(1))
    for _ in range(2000):
        breaker.open(1000.0)
    breaker.probe()
    breaker.close(1000.0)
    assert breaker.open(1000.0 + STEADY_SECONDS) <= FIRST_RETRY_SECONDS * 1.5
    breaker.probe()
    assert breaker.open(1001.0 + STEADY_SECONDS) <= FIRST_RETRY_SECONDS * 3, "and then it grows anew"
