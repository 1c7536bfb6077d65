"""Which latencies are of use."""

from loadtest.bench.measure.latency import Latency, undisturbed


def latency(round_: int, *, waited: float = 0.0, late: float = 0.1) -> Latency:
    direct = {"p50": 0.07, "p99": 0.2, "late": 0.1}
    return Latency(round_, "own", 20_000.0, 0.6, waited, direct, {"p50": 0.17, "p99": 0.7, "late": late})


def test_added_is_what_the_proxy_takes_beyond_direct() -> None:
    assert round(latency(1).added("p50"), 6) == 0.1


def test_a_round_in_which_somebody_else_had_the_core_is_left_out() -> None:
    quiet, crowded, tardy = latency(1), latency(2, waited=0.01), latency(3, late=4.0)
    assert undisturbed([quiet, crowded, tardy], "own") == [quiet]


def test_where_all_rounds_were_disturbed_they_are_all_there_is() -> None:
    assert len(undisturbed([latency(1, waited=0.01), latency(2, late=4.0)], "own")) == 2
