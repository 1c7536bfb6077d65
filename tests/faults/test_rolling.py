"""An edge under load, replaced by one with another number of workers, so that tables are carried to a new layout."""

import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.process import kill
from loadtest.testbed.waiting import until
from tests.support.asking import Asking, at_work
from tests.support.edge_tables import in_use, shown
from tests.support.service import Service

LIMIT = 300
AT_ONCE = 2
TERMS: dict[str, dict[str, Any]] = {
    "window": {"limits": [{"rate": f"{LIMIT}/day"}]},
    "bucket": {"limits": [{"rate": f"{LIMIT}/day", "algorithm": "token_bucket"}]},
    "hybrid": {"limits": [{"rate": f"{LIMIT}/day", "algorithm": "hybrid", "burst": LIMIT}]},
    "quota": {"quotas": [{"meter": "requests", "per": "month", "included": LIMIT, "cap": "hard"}]},
}
STEPS = 3
"""The least number of admitted requests of a customer between two changes."""


def settings() -> dict[str, Any]:
    """Return a customer for each kind of limit. No limit refills during the test."""
    described = people(**dict.fromkeys([*TERMS, "slots"], "free"))
    for name, terms in TERMS.items():
        described["customers"][name] |= terms
    described["customers"]["slots"]["concurrency"] = AT_ONCE
    return described


def used(edge: Edge, name: str) -> int:
    """Return the reported usage of a customer."""
    return int(edge.limit(name)["used"])


def alone(edge: Edge) -> bool:
    """Return whether all old tables have been carried and removed."""
    state = Path(edge.settings["state"])
    return all(len(list(state.glob(f"{kind}.*.tbl"))) == 1 for kind in ("customers", "quotas", "addresses"))


def replace_in_order(edge: Edge) -> None:
    """Start an edge with three workers, then end the old one."""
    old = edge.supervisor
    edge.begin(workers=3)
    until(lambda: edge.output.count('"event": "edge serving"') == 2, "the new edge serves")
    assert old.wait_after(signal.SIGTERM, 20) == 0


def replace_what_died(edge: Edge) -> None:
    """Kill the supervisor, then start one with one worker. The old workers serve until it does."""
    orphans = set(edge.worker_pids())
    kill(edge.supervisor.pid)
    edge.supervisor.wait(10)
    edge.start(workers=1)
    until(lambda: not edge.supervisor.family() & orphans, "the orphans leave")


def used_up(edge: Edge) -> dict[str, Asking]:
    """Let all customers make requests until they are refused."""
    everyone = {name: Asking(edge.port, name, pause=0.01) for name in TERMS}
    with at_work(*everyone.values()):
        until(lambda: all(asking.statuses[429] > 5 for asking in everyone.values()), "all customers are refused")
    return everyone


def test_usage_survives_a_change_of_the_number_of_workers(start_edge: StartEdge, service: Service) -> None:
    edge = start_edge(port=service.port, workers=2, **settings())
    everyone = {name: Asking(edge.port, name, connections=2, pause=0.4) for name in TERMS}
    everyone["slots"] = Asking(edge.port, "slots", path="/hold?ms=100", connections=4, pause=0.02)
    settled = []

    def all_get_through() -> None:
        expected = {name: asking.statuses[200] + STEPS for name, asking in everyone.items()}
        until(
            lambda: all(everyone[name].statuses[200] >= n for name, n in expected.items()),
            "all customers have requests admitted",
        )

    replacements: list[Callable[[Edge], None]] = [replace_in_order, replace_what_died]
    with at_work(*everyone.values()):
        all_get_through()
        for replacement in replacements:
            replacement(edge)
            until(lambda: alone(edge), "the old tables are gone")
            settled.append(monotonic())
            told = {name: everyone[name].statuses[200] for name in TERMS}
            assert all(used(edge, name) >= n for name, n in told.items())
            all_get_through()
    slots = service.of("slots")
    until(lambda: slots.now == 0, "no request is in progress")
    for name, asking in everyone.items():
        print(f"{name}: {dict(asking.statuses)}, {asking.lost} lost")
    spans = slots.above(AT_ONCE)
    print([f"{since - settled[0]:+.1f} to {end - settled[0]:+.1f} s: {peak}" for since, end, peak in spans])
    assert in_use(edge, "slots") == shown(edge, "slots") == 0
    # Old workers do not know the new ones. While both serve, each edge allows the whole limit.
    assert max([peak for *_, peak in spans], default=0) <= 2 * AT_ONCE
    for name, asking in used_up(edge).items():
        passed = everyone[name].statuses[200] + asking.statuses[200]
        assert not asking.lost
        assert everyone[name].statuses[429] == 0
        # A request lost with a drained connection may have been counted.
        assert LIMIT - everyone[name].lost <= passed <= LIMIT, name
        assert used(edge, name) in (LIMIT, LIMIT - 1)
