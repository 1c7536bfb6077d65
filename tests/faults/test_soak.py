"""Mixed traffic during all kinds of faults: each error has a fault as its cause, and all sums agree."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.soak.course import EDGE, WAY, Course
from loadtest.soak.fault import FaultKind
from loadtest.soak.report import report
from loadtest.soak.site import Site
from loadtest.soak.verdict import Outcome
from loadtest.soak.watch import Watch, vitals
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

SHORT, LONG = 40.0, float(os.environ.get("EDGEPROXY_SOAK_SECONDS", "1800"))
"""Seconds of the fault schedule. The load starts before it and ends after it."""
SLOWER = 3.0
"""The factor of longer client pauses in the short run. The short run has the faults of the long one."""
REPORT = ROOT / "bench-results" / "soak.md"
"""The report of the long run."""
LEFT_OVER = 4
"""The number of extra descriptors that a process may have after the load."""
POOL_IDLE = 20.0
"""Seconds until the edge has closed its idle upstream connections."""


@pytest.fixture
def site(tmp_path: Path, seed: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    long = request.node.get_closest_marker("soak") is not None
    site = Site(tmp_path, seed, slower=1.0 if long else SLOWER)
    if long:
        monkeypatch.setattr(Process, "forks", False)  # The test measures memory, and forked processes share theirs.
    try:
        yield site.open()
    finally:
        site.close()


def soak(site: Site, seed: int, seconds: float, weights: dict[FaultKind, int]) -> Outcome:
    """Run the load and the fault schedule. Return the records."""
    before = descriptors(site)
    idle = min(held.memory for pid in site.kin() if (held := vitals(pid)) is not None)
    watch, course = Watch(site), Course(site, seed, seconds, weights)
    site.load()
    watch.start()
    try:
        course.run()
        site.rest()
    finally:
        watch.end()
    until(lambda: descriptors(site) <= before + LEFT_OVER, "the descriptors of the load are closed", seconds=POOL_IDLE)
    return Outcome(
        seed=seed,
        seconds=seconds,
        fault_kinds=course.fault_kinds,
        faults=site.faults,
        held=site.held,
        sums=site.sums,
        met=site.edge.relay.met,
        watch=watch,
        calm=course.calm,
        idle=idle,
    )


def timeline(outcome: Outcome) -> str:
    """Return every fault with its times, to compare with complaints."""
    return "\n".join(f"{fault.began:.3f} to {fault.ended:.3f}: {fault.kind} ({fault.note})" for fault in outcome.faults)


def descriptors(site: Site) -> int:
    """Return the highest number of descriptors of a process of the edge."""
    return max(held.descriptors for pid in site.kin() if (held := vitals(pid)) is not None)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_minute_of_all_faults_leaves_no_complaint(site: Site, seed: int) -> None:
    outcome = soak(site, seed, SHORT, EDGE)
    print(report(outcome), timeline(outcome), sep="\n")
    assert not outcome.complaints()


@pytest.mark.soak
@pytest.mark.timeout(2 * LONG)
def test_half_an_hour_of_all_faults_leaves_no_complaint(site: Site, seed: int) -> None:
    outcome = soak(site, seed, LONG, EDGE | WAY)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(outcome))
    print(report(outcome), timeline(outcome), sep="\n")
    assert not outcome.complaints()
