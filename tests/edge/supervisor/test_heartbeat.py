"""The silence that a worker is allowed, counted in checks."""

from edgeproxy.edge.supervisor.heartbeat import CHECKS_PER_HUNG_TIME, Heartbeat


def test_worker_without_a_first_heartbeat_is_not_hung() -> None:
    heartbeat = Heartbeat()
    assert not any(heartbeat.is_hung() for _ in range(3 * CHECKS_PER_HUNG_TIME))


def test_silent_worker_is_hung_after_the_configured_checks() -> None:
    heartbeat = Heartbeat()
    heartbeat.beat()
    assert [heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME + 1)] == [False] * CHECKS_PER_HUNG_TIME + [True]


def test_worker_with_one_heartbeat_in_time_is_not_hung() -> None:
    heartbeat = Heartbeat()
    for _ in range(5):
        heartbeat.beat()
        assert not any(heartbeat.is_hung() for _ in range(CHECKS_PER_HUNG_TIME))
