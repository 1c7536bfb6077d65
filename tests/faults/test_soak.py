"""Mixed traffic while everything happens at once: nothing that a fault does not explain, and all sums agree."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.soak.course import EDGE, WAY, Course
from loadtest.soak.fault import Deed
from loadtest.soak.report import report
from loadtest.soak.site import Site
from loadtest.soak.verdict import Outcome
from loadtest.soak.watch import Watch, vitals
from loadtest.testbed.process import ROOT, Process
from loadtest.testbed.waiting import until

SHORT, LONG = 40.0, float(os.environ.get("EDGEPROXY_SOAK_SECONDS", "1800"))
"""Seconds of the course; the load begins before it and ends after it."""
SLOWER = 3.0
"""How many times longer clients pause in the short course: what is done to the edge is the same."""
REPORT = ROOT / "bench-results" / "soak.md"
"""Where the long run leaves its report."""
LEFT_OVER = 4
"""Descriptors that a process may hold more after the load than one had before it."""
POOL_IDLE = 20.0
"""Seconds after which the edge has closed what it kept to upstreams."""


@pytest.fixture
def site(tmp_path: Path, seed: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    long = request.node.get_closest_marker("soak") is not None
    site = Site(tmp_path, seed, slower=1.0 if long else SLOWER)
    if long:
        monkeypatch.setattr(Process, "forks", False)  # the memory of processes is looked at: copies share theirs
    try:
        yield site.open()
    finally:
        site.close()


def soak(site: Site, seed: int, seconds: float, weights: dict[Deed, int]) -> Outcome:
    """Load, the course, and all that was written down."""
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
    until(lambda: descriptors(site) <= before + LEFT_OVER, "what was open is closed", seconds=POOL_IDLE)
    return Outcome(
        seed=seed,
        seconds=seconds,
        deeds=course.deeds,
        faults=site.faults,
        held=site.held,
        sums=site.sums,
        met=site.edge.relay.met,
        watch=watch,
        calm=course.calm,
        idle=idle,
    )


def timeline(outcome: Outcome) -> str:
    """Every deed, so that a complaint can be held against it."""
    return "\n".join(f"{each.began:.3f} to {each.ended:.3f}: {each.deed} ({each.note})" for each in outcome.faults)


def descriptors(site: Site) -> int:
    """Of the process of the edge that has most of them."""
    return max(held.descriptors for pid in site.kin() if (held := vitals(pid)) is not None)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_less_than_a_minute_of_everything(site: Site, seed: int) -> None:
    outcome = soak(site, seed, SHORT, EDGE)
    print(report(outcome), timeline(outcome), sep="\n")
    assert not outcome.complaints()


@pytest.mark.soak
@pytest.mark.timeout(2 * LONG)
def test_half_an_hour_of_everything(site: Site, seed: int) -> None:
    outcome = soak(site, seed, LONG, EDGE | WAY)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(outcome))
    print(report(outcome), timeline(outcome), sep="\n")
    assert not outcome.complaints()
