"""The edge restarts: counts and limits continue, with any number of workers."""

import math
import time

from loadtest.testbed.customers import MINUTE, UNLIMITED, WINDOW, key_of, people
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until, wait_until


def ask_times(edge: Edge, customer: str, times: int) -> list[int]:
    """The statuses of so many requests, each over a connection of its own."""
    return [edge.ask(key=key_of(customer)).status for _ in range(times)]


WORKERS = (2, 2, 4, 1)
"""The number of workers after each start."""


def test_usage_metrics_and_limits_go_on_after_a_restart(start_edge: StartEdge, upstream: Upstream) -> None:
    begun = time.monotonic()
    edge = start_edge(**people(full=[f"20/{MINUTE}"], partly=[f"100/{MINUTE}"]), workers=WORKERS[0])
    assert ask_times(edge, "full", 25) == [200] * 20 + [429] * 5
    asked = 0
    for number, count in enumerate(WORKERS):
        if number:
            edge.end()
            edge.start(workers=count)
        assert len(edge.worker_pids()) == count
        assert edge.limit("full")["used"] == 20
        assert edge.limit("partly")["used"] == asked
        assert ask_times(edge, "full", 3) == [429] * 3
        assert ask_times(edge, "partly", 15) == [200] * 15
        assert ask_times(edge, UNLIMITED, 10) == [200] * 10
        asked += 15
        assert edge.usage() == {"full": 20, "partly": asked, UNLIMITED: 10 * (number + 1)}
        samples = edge.metrics()
        assert total(samples, "edge_requests_total", code="200") == 20 + asked + 10 * (number + 1)
        assert total(samples, "edge_requests_total", code="429") == 5 + 3 * (number + 1)
    statuses = ask_times(edge, "partly", 100 - asked + 5)
    assert statuses == [200] * (100 - asked) + [429] * 5
    assert upstream.seen()["received"] == {"full": 20, "partly": 100, UNLIMITED: 10 * len(WORKERS)}
    assert time.monotonic() - begun < WINDOW


def test_limits_go_on_in_windows_that_began_before_the_restart(start_edge: StartEdge) -> None:
    """Earlier counts leave the window in time: the restart neither forgets them nor keeps them for ever."""
    begun = time.monotonic()
    edge = start_edge(workers=1)
    # Of a machine that has much to do, the window must be longer than a restart takes.
    window = max(8, math.ceil(5 * (time.monotonic() - begun)))
    assert edge.reload(**people(acme=[f"10/{window}s"])).status == 200
    first = time.monotonic()
    assert ask_times(edge, "acme", 11) == [200] * 10 + [429]
    edge.end()
    edge.start(workers=2)
    refused = edge.ask(key=key_of("acme"))
    assert time.monotonic() - first < window, "the machine is too slow for this test"
    assert refused.status == 429
    due = time.monotonic() + int(refused["retry-after"])
    assert due - first < window * 29 / 28 + 2
    wait_until(due)
    assert ask_times(edge, "acme", 1) == [200]


def test_repeated_or_early_signals_end_the_edge_cleanly(start_edge: StartEdge) -> None:
    edge = start_edge()
    edge.supervisor.terminate()
    edge.supervisor.terminate()
    assert edge.supervisor.wait(10) == 0
    starting = edge.begin()
    until(lambda: edge.output.count('"event": "edge starting"') == 2, "the edge starts")
    starting.terminate()
    assert starting.wait(10) == 0
    until(lambda: not edge.supervisor.family(), "nothing is left", seconds=5)
