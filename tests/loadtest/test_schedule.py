"""The schedule: one Poisson process whoever starts it, with the shares that were asked for."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtest.schedule import Arrival, Kind, Phase, Recorded, arrivals, length, share

REGIONS = {"eu": 0.6, "us": 0.4}
KINDS = {"basic": Kind(0.7, 5), "burst": Kind(0.3, 2, at_once=6)}

rates = st.floats(1, 400)
phases = st.lists(st.builds(Phase, st.floats(0.1, 3), rates, rates), min_size=1, max_size=3)


def played(shape: list[Phase | Recorded], seed: int = 7) -> list[Arrival]:
    return list(arrivals(shape, REGIONS, KINDS, seed))


@given(phases, st.integers(1, 5), st.integers())
def test_workers_share_the_arrivals_of_one_schedule(shape: list[Phase | Recorded], workers: int, seed: int) -> None:
    alone = played(shape, seed)
    parts = [list(share(arrivals(shape, REGIONS, KINDS, seed), worker, workers)) for worker in range(workers)]
    assert sorted(one for part in parts for one in part) == sorted(alone)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(phases)
def test_arrivals_are_in_order_and_within_the_shape(shape: list[Phase | Recorded]) -> None:
    due = [one.due for one in played(shape)]
    assert due == sorted(due)
    assert not due or (due[0] >= 0 and due[-1] <= length(shape))


def test_ramp_has_its_mean_rate_with_most_arrivals_late() -> None:
    due = [one.due for one in played([Phase(100, 0, 200)])]
    assert abs(len(due) - 10_000) < 500  # five standard deviations
    assert abs(sum(at > 100 / 2**0.5 for at in due) - len(due) / 2) < 400


def test_kind_and_region_shares_include_burst_requests() -> None:
    some = played([Phase(100, 200, 200)])
    assert abs(len(some) - 20_000) < 1500
    kinds, regions = Counter(one.kind for one in some), Counter(one.region for one in some)
    assert abs(kinds["burst"] / len(some) - 0.3) < 0.03
    assert abs(regions["us"] / len(some) - 0.4) < 0.03
    together = Counter((one.due, one.person) for one in some if one.kind == "burst")
    assert set(together.values()) == {6}


def test_gaps_are_those_of_a_poisson_process() -> None:
    due = [arrival.due for arrival in arrivals([Phase(200, 100, 100)], REGIONS, {"basic": Kind(1, 1)}, 7)]
    gaps = [later - earlier for earlier, later in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert abs(deviation / mean - 1) < 0.05


def test_recorded_person_keeps_their_identity() -> None:
    log = Recorded(3.0, [(0.5, 11, "GET", 5, ""), (1.0, 12, "HEAD", 0, ""), (2.5, 11, "POST", 7, "")])
    first, _, third = played([Phase(1, 1e-6, 1e-6), log])
    assert (first.due, third.due) == (1.5, 3.5)
    assert first[1:4] == third[1:4]
    assert (third.method, third.size) == ("POST", 7)
