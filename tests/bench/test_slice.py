"""When a slice does not count: the answers were not right."""

from loadtest.bench.load.wrk import Load
from loadtest.bench.measure.slice import fault
from loadtest.bench.scenario import SCENARIOS

SMALL, REFUSED, LARGE = SCENARIOS["small"], SCENARIOS["429"], SCENARIOS["64k"]


def load(requests: int = 1000, refused: int = 0, failed: int = 0, length: int = 300) -> Load:
    return Load(requests, 1_000_000, requests * length, refused, failed)


def test_answers_that_the_upstream_gave_are_right() -> None:
    assert fault(SMALL, load(), seen=1000, connections=64) == ""


def test_requests_under_way_at_the_end_are_not_missed() -> None:
    assert fault(SMALL, load(), seen=1128, connections=64) == ""
    assert "saw 1129" in fault(SMALL, load(), seen=1129, connections=64)


def test_a_peer_that_answers_by_itself_is_found_out() -> None:
    assert "saw 999" in fault(SMALL, load(), seen=999, connections=64)


def test_slice_fault_reports_a_broken_limit_only_in_limit_slices() -> None:
    assert fault(REFUSED, load(refused=940), seen=60, connections=64) == ""
    assert "61 passed of a limit of 60" in fault(REFUSED, load(refused=939), seen=61, connections=64)
    assert "were refused" in fault(SMALL, load(refused=1), seen=999, connections=64)


def test_bodies_must_be_whole() -> None:
    assert fault(LARGE, load(length=65800), seen=1000, connections=64) == ""
    assert "bytes" in fault(LARGE, load(length=65000), seen=1000, connections=64)


def test_a_failed_connection_spoils_a_slice() -> None:
    assert "failed" in fault(SMALL, load(failed=1), seen=1000, connections=64)
