"""Exchanges with counted instructions really take place: the program has every transport method of a worker."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtest.bench.measure.crowd import Crowd, parse_crowd

RUNS = (
    *((name,) for name in ("post10k", "vary", "429", "64k", "fallback", "http2-10", "http2-vary", "http2-64k")),
    *((name,) for name in ("many-100", "many-400-first", "many-50-zipf-routes100-new", "many-50-64k")),
    *(("many-50-http2-10",), ("many-50-64k-http2",), ("small", "--workers", "9"), ("many-20", "--workers", "3")),
)
"""Scenarios with their options: each kind of exchange, many customers, and several workers."""
PLAY = """
from loadtest.bench.measure import scripted  # It replaces the clock, before other modules import that by name.
import asyncio, multiprocessing, os, sys

def play(folder, scenario, *options):
    os.mkdir(folder)
    sys.argv[1:] = [folder, scenario, "20", *options]
    asyncio.run(scripted.main())

processes = multiprocessing.get_context("fork")
for number, run in enumerate(RUNS):
    process = processes.Process(target=play, args=(f"{sys.argv[1]}/{number}", *run))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{run} ended with {process.exitcode}")
"""


def test_exchanges_take_place_without_sockets(tmp_path: Path) -> None:
    """Each run is a copy of one process: imports take a second of CPU."""
    command = [sys.executable, "-c", f"RUNS = {RUNS}{PLAY}", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_crowd_name_sets_keys_routes_and_paths() -> None:
    crowd = parse_crowd("many-300-zipf-routes100-new")
    assert crowd == Crowd(300, 100, is_zipf=True, has_new_paths=True)
    answer = crowd.ask(2000)
    keys = Counter(each.partition(b"Bearer ")[2] for each in answer)
    assert keys.most_common(1)[0][1] > 20 * min(keys.values())
    assert len({each.partition(b" HTTP")[0] for each in answer}) == 2000
    assert len({each.split(b"/")[1] for each in answer}) == 100
    assert parse_crowd("many-0") is parse_crowd("small") is parse_crowd("many-5-new-64k") is None


@pytest.mark.parametrize(
    "name",
    ["many-3-zipf-routes100-new-first", "many-3-64k-http2", "many-3-http2-10", "many-3-routes5-new-again-flooded"],
)
def test_crowd_has_the_name_that_it_was_parsed_from(name: str) -> None:
    crowd = parse_crowd(name)
    assert crowd is not None
    assert crowd.name == name


def test_first_request_crowd_uses_keys_absent_from_warm_up() -> None:
    crowd = parse_crowd("many-1000-first")
    assert crowd is not None
    assert not set(crowd.ask(700)) & set(crowd.warm_up())
    assert len(set(crowd.ask(700))) == 700


def test_customers_of_a_repeating_crowd_have_used_their_routes_but_not_their_new_paths() -> None:
    crowd = parse_crowd("many-100-routes10-new-again")
    assert crowd is not None
    used, counted = crowd.use_routes(50), crowd.ask(50)
    assert [_find_route_and_key(route) for route in used] == [_find_route_and_key(each) for each in counted]
    assert not {route.split(b" ")[1] for route in used} & {each.split(b" ")[1] for each in counted}
    assert Crowd(100, 10).use_routes(50) == []


def _find_route_and_key(request: bytes) -> tuple[bytes, bytes]:
    return request.split(b"/")[1], request.partition(b"Bearer ")[2]
