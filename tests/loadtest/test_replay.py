"""An access log as a schedule: sorted, spread, without idle times, capped, and without client addresses."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from loadtest.replay import LARGEST, read, recorded
from loadtest.schedule import Kind, Phase, arrivals

LOG = Path(__file__).parents[3] / "shared/data/access.log.gz"
"""Ten thousand real requests, if the file is beside the project."""


def line(time: str, address: str = "203.0.113.7", method: str = "GET", size: object = 1000) -> str:
    return f'{address} - - [17/May/2015:10:{time} +0000] "{method} /x HTTP/1.1" 200 {size} "-" "-"'


def test_requests_of_a_second_are_spread_over_it_and_sorted() -> None:
    log = recorded([line("05:01"), line("05:00"), line("05:01"), "no log line"], 1, speed=1, longest_gap=9)
    assert [at for at, *_ in log.requests] == [0, 1, 1.5]


def test_replay_applies_speed_and_the_longest_gap() -> None:
    log = recorded([line("05:00"), line("05:10"), line("45:00")], 1, speed=10, longest_gap=2)
    assert [at for at, *_ in log.requests] == [0, 1, 3]


def test_sizes_are_capped_and_methods_stay() -> None:
    log = recorded([line("05:00", size=69_192_717), line("05:01", method="HEAD", size="-")], 1, speed=1, longest_gap=9)
    assert [request[2:] for request in log.requests] == [("GET", LARGEST, ""), ("HEAD", 0, "")]


def test_replay_pseudonym_depends_on_address_and_key() -> None:
    lines = [line("05:00"), line("05:01", "198.51.100.9"), line("05:02")]
    one, other = (recorded(lines, key, speed=1, longest_gap=9) for key in (1, 2))
    people = [person for _, person, *_ in one.requests]
    assert people[0] == people[2] != people[1]
    assert {person for _, person, *_ in other.requests}.isdisjoint(people)
    assert "203" not in re.sub(r"[0-9]{10,}", "", repr(one))


@pytest.mark.skipif(not LOG.is_file(), reason="the access log is not beside the project")
def test_the_given_log_becomes_an_even_load() -> None:
    log = recorded(read(LOG), 7, speed=150, longest_gap=2)
    assert len(log.requests) == 10_000
    times = [at for at, *_ in log.requests]
    assert times == sorted(times)
    assert max(b - a for a, b in pairwise(times)) == pytest.approx(2)
    assert 180 < log.seconds < 220
    assert max(size for *_, size, _ in log.requests) == LARGEST
    some = list(arrivals([Phase(1, 50, 50), log], {"eu": 1}, {"pro": Kind(1, 30), "basic": Kind(1, 10)}, 7))
    assert {arrival.kind for arrival in some} == {"pro", "basic"}
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", repr(some))
