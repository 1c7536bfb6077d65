"""When half-closed clients are probed: time is an argument."""

from edgeproxy.edge.proxy.connections.probe_schedule import PROBE_SECONDS, ProbeSchedule
from edgeproxy.edge.proxy.transport.deadlines import NEVER


def test_the_first_seconds_are_the_requests_own_and_each_probe_waits_longer() -> None:
    probes = ProbeSchedule(started=10.0, now=10.01)
    assert not probes.is_due(10.0 + PROBE_SECONDS[0] - 0.001)
    now, sent = 10.0, []
    while probes.due != NEVER:
        now = probes.due
        assert probes.is_due(now)
        probes.record_probe(now)
        sent.append(round(now - 10.0, 3))
    assert sent == [0.1, 1.1, 3.1, 7.1, 15.1, 31.1]
    assert not probes.is_due(NEVER)


def test_a_client_that_closes_late_is_probed_at_once() -> None:
    assert ProbeSchedule(started=10.0, now=12.0).is_due(12.0)
