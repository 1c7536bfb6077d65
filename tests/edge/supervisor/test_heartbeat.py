"""The silence that a worker is allowed, counted in checks."""

from edgeproxy.edge.supervisor.heartbeat import CHECKS_PER_HUNG_TIME, Heartbeat


def test_one_that_has_never_spoken_is_not_missed() -> None:
    heartbeat = Heartbeat()
    assert not any(heartbeat.is_hung() for _ in range(3 * CHECKS_PER_HUNG_TIME))


def test_one_that_fell_silent_hangs_after_so_many_looks() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    assert [heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME + 1)] == [False] * CHECKS_PER_HUNG_TIME + [True]


def test_whoever_speaks_once_in_the_time_lives() -> None:
    heartbeat = Heartbeat()
    for _ in range(5):
        heartbeat.beat()
        assert not any(heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME))
