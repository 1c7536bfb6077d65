"""The cost of regular requests beside a flood, whose own cost is subtracted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.bench.measure import flood
from loadtest.bench.measure.crowd import FLOOD, Crowd, parse_crowd
from loadtest.bench.measure.flood import FloodCost, compute_instructions_ratio


def test_requests_beside_a_flood_alternate_with_new_invented_keys() -> None:
    crowd = parse_crowd("many-100-beside-flood")
    assert crowd == Crowd(100, is_beside_flood=True)
    assert crowd.name == "many-100-beside-flood"
    requests, before = crowd.ask(50), set(crowd.flood())
    assert requests[::2] == Crowd(100).ask(50)[:25]
    assert len(before) == FLOOD
    assert len({*requests[1::2]} - before - {*Crowd(100).warm_up()}) == 25
    invented = Crowd(100, is_flood=True).ask(50)
    assert requests[1::2] == invented[:25]
    assert (Crowd(100, is_flood=True).name, len({*invented})) == ("many-100-flood", 50)


def test_instructions_of_the_flood_are_subtracted() -> None:
    assert compute_instructions_ratio({"many-5000": 100, "many-5000-flood": 300, "many-5000-beside-flood": 220}) == 1.4
    assert compute_instructions_ratio({"many-5000": 100}) is None


def test_a_slice_beside_a_flood_counts_the_rest_for_regular_requests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The worker of this test takes 10 µs for a regular request, 20 for one of a flood, and 4 more beside it."""
    spent = 0.0

    def run(*_: object, connections: int, invented: int = 0, **options: object) -> tuple[Any, Any]:
        nonlocal spent
        own, others = 100 * bool(connections), 200 * bool(invented)
        spent += own * (14 if invented else 10) + others * 20
        return tuple(
            SimpleNamespace(requests=count, refused=refused, microseconds=1000)
            for count, refused in ((own, 0), (others, others))
        )

    monkeypatch.setattr(flood.crowd_client, "run", run)
    monkeypatch.setattr(flood.cpu, "of_processes", lambda _: {1: flood.cpu.Spent(round(spent * 1000), 0)})
    monkeypatch.setattr(flood, "pace", lambda *_: SimpleNamespace(p50=0.001, p95=0.002, p99=0.003))
    stage: Any = SimpleNamespace(options=SimpleNamespace(load_core=0, seconds=1))
    running: Any = SimpleNamespace(port=1, workers=lambda: [1])
    cost: FloodCost = flood._measure(stage, "edgeproxy", 1, running, Crowd(flood.CUSTOMERS))
    assert (cost.alone, cost.flood, cost.beside) == (10, {"invented": 20, "wrong": 20}, {"invented": 14, "wrong": 14})
    assert (cost.to_alone, cost.to_wrong) == (1.4, 1)
    assert cost.latencies["wrong"] == {"p50": 1, "p95": 2, "p99": 3}
