from edgeproxy.edge.counters.control import HEARTBEAT_FRESH_SECONDS
from edgeproxy.edge.supervisor.serving import other_serves

OWN, OTHER = 7, 8


def test_other_supervisor_serves_while_its_heartbeat_is_fresh() -> None:
    assert other_serves(OWN, OTHER, 0.0)
    assert not other_serves(OWN, OTHER, HEARTBEAT_FRESH_SECONDS)


def test_own_token_and_zero_are_not_another_supervisor() -> None:
    assert not other_serves(OWN, 0, 0.0)
    assert not other_serves(OWN, OWN, 0.0)
