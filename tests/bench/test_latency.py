"""Which latencies are of use."""

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.bench.load.paced import Pace
from loadtest.bench.measure import cpu
from loadtest.bench.measure import latency as module
from loadtest.bench.measure.latency import Latency, against, undisturbed


def latency(round_: int, *, waited: float = 0.0, late: float = 0.1) -> Latency:
    direct = {"p50": 0.07, "p99": 0.2, "late": 0.1}
    return Latency(round_, "own", 20_000.0, 0.6, waited, direct, {"p50": 0.17, "p99": 0.7, "late": late}, 40_000)


def test_added_latency_is_proxied_minus_direct_latency() -> None:
    assert round(latency(1).added("p50"), 6) == 0.1


def test_latency_report_excludes_disturbed_rounds() -> None:
    quiet, crowded, tardy = latency(1), latency(2, waited=0.01), latency(3, late=4.0)
    assert undisturbed([quiet, crowded, tardy], "own") == [quiet]


def test_latency_report_uses_all_rounds_if_all_were_disturbed() -> None:
    assert len(undisturbed([latency(1, waited=0.01), latency(2, late=4.0)], "own")) == 2


def test_a_peer_is_held_against_the_reference_in_the_same_round() -> None:
    """A round that one of the two did not get to tells nothing."""
    own = [
        replace(latency(n), through={"p50": 0.07 + added, "p99": 0.7}) for n, added in ((1, 0.1), (2, 0.4), (3, 9.0))
    ]
    other = [replace(each, peer="other", through={"p50": 0.07 + 0.2, "p99": 0.7}) for each in own[:2]]
    assert round(against([*own, *other], "own", "other", "p50") or 0.0, 6) == 1.25
    assert against(own, "own", "other", "p50") is None


def test_slice_records_the_core_share_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the load and the peer: it is busy for all of the time that it says it took."""

    def pace(*_: object) -> Pace:
        until = cpu.of_process(os.getpid()).ran + 1e8
        while cpu.of_process(os.getpid()).ran < until:
            pass
        return Pace(requests=1000, seconds=0.1, wrong=0, unanswered=0, p50=0.0002, p95=0.0005, p99=0.0007, late=0.0001)

    monkeypatch.setattr(module, "pace", pace)
    monkeypatch.setattr(module, "WARM_UP_SECONDS", 0.0)
    stage: Any = SimpleNamespace(upstream=SimpleNamespace(ports=[1]))
    running: Any = SimpleNamespace(port=2, workers=lambda: [os.getpid()])
    peer: Any = SimpleNamespace(name="own")
    found = module.at_rate(stage, 1, peer, running, 1000.0)
    assert 1 <= found.busy < 1.5
    assert found.waited >= 0
    assert found.added("p50") == 0
