"""Three regions share a limit within the bounds of docs/design/limits.md#what-is-accepted (`scripts/regions`)."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeproxy.edge.limits.gate import WAIT_SECONDS_MAX
from loadtest.regions import clocks, latency
from loadtest.regions.console import CUSTOMERS, Console
from loadtest.regions.play import HEAD, LEAD, Found, line, notes, play, wrongly
from loadtest.regions.scenarios import CUT, MODES, SCENARIOS, WINDOW, Part, parts
from loadtest.regions.world import World
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.redis import SERVER
from loadtest.testbed.waiting import until

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

CUT_AT = 27.0
"""Seconds until the hub is cut off. All other scenarios have ended by then."""
CUT_SECONDS = 12.0
"""Seconds of the cut: longer than the hub remembers a silent host."""
BURST_SECONDS = 0.5
"""More than three round trips from the most distant region to the hub: each region has the hub's answer by then."""
STILL = 0.15
"""Seconds above the longest allowed wait. A slower request shows that the machine, and so the edges, stood still."""
TIMES = 3
"""Maximum number of runs if the machine stood still."""
HELD = ["bounded", "strict"]
"""Modes with a guaranteed bound."""
PLAYED = [
    *parts(["steady", "burst", "cut"], [60, 600], HELD),
    # Twenty times the higher limit would be half of all requests. `test_simulate.py` asks so much of six hosts, and
    # `test_every_scenario_stays_within_its_bounds` of these.
    *parts(["attack", "siege"], [60], HELD),
    # A window of a minute does not end while the hub is cut off; this shorter one does.
    *parts(["cut"], [60], HELD, window=20.0),
    *parts(["steady", "waves", "flash"], [60, 600], HELD, window=10.0),
    # With a limit of 60 a minute, the moving client may pass one request too many in one run of a hundred, and the calm
    # client may be refused rightly. Clients with few requests would not reach the limit before the hub is cut off.
    *parts(["roaming", "calm"], [600], ["bounded"], window=20.0),
    *parts(["roaming"], [60, 600], ["strict"], window=20.0),
]


def shown(found: list[Found]) -> list[str]:
    """Print the table and return its faults."""
    print(HEAD, *map(line, found), sep="\n")
    return [f"{one.part.customer}: {fault}" for one in found for fault in one.faults]


def stood_still(found: list[Found]) -> bool:
    """Return whether a request took longer than is possible unless the machine stood still."""
    return any(one.longest > WAIT_SECONDS_MAX[one.part.mode] + STILL for one in found if one.part.mode != "eventual")


@contextmanager
def world(folder: Path, seed: int) -> Iterator[World]:
    """The regions with all customers of the scenarios. Their clocks differ if libfaketime is available."""
    customers = {part.customer: part.limits for part in PLAYED}
    with World(folder, customers, seed=seed, prepare=skewed) as made:
        for name in clocks.SKEWS if clocks.LIBRARY is not None else ():
            for pid in made[name].edge.worker_pids():
                assert "libfaketime" in Path(f"/proc/{pid}/maps").read_text(), "its clock is wrong"
        yield made


def skewed(region: str, edge: Edge) -> None:
    """Set an edge's clock wrong."""
    if clocks.LIBRARY is not None and region in clocks.SKEWS:
        edge.environ |= clocks.ahead(clocks.SKEWS[region])


@pytest.mark.soak
@pytest.mark.timeout(150 * TIMES)
def test_limits_hold_across_regions_even_without_the_hub(tmp_path: Path, seed: int) -> None:
    for time in range(TIMES):
        with world(tmp_path / str(time), seed) as regions:
            found = play(
                regions,
                PLAYED,
                CUT_AT + CUT_SECONDS + 5.0,
                seed=seed,
                cut_at=CUT_AT,
                cut_seconds=CUT_SECONDS,
                burst_seconds=BURST_SECONDS,
            )
            print(*notes(regions), sep="\n")
        faults = shown(found)
        if not (faults and stood_still(found)):
            break
    assert not faults


@pytest.fixture
def regions(tmp_path: Path, seed: int) -> Iterator[World]:
    with World(tmp_path, CUSTOMERS, seed=seed) as made:
        yield made


def test_console_executes_its_commands(regions: World) -> None:
    console = Console(regions)
    assert all(f":{region.edge.port}/" in console.welcome() for region in regions)
    assert "5 passed,    0 refused" in console.obey("ask 5 us")
    assert console.obey("ask 2 globex").count("2 passed,    0 refused") == 3
    assert "the link: cut" in console.obey("asia cut")
    until(lambda: "away (on its own)" in console.status(), "the edge knows")
    assert regions["asia"].edge.ask(key=key_of("acme")).status == 200, "and serves"
    assert "400 ms" in console.obey("us slow 400")
    console.obey("us heal")
    console.obey("asia heal")
    until(lambda: "away" not in console.status(), "the region is back")
    for unknown in ("help", "us", "us fly", "us slow", "us slow much", "ask", "ask many", "ask 1 nobody"):
        assert "Type here" in console.obey(unknown)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cut", [None, "hole", "cut"])
def test_every_scenario_stays_within_its_bounds(tmp_path: Path, seed: int, cut: str | None) -> None:
    names = [name for name, scenario in SCENARIOS.items() if scenario.cut == (cut is not None)]
    played = parts(names, [60, 600, 10_000], MODES)
    with World(tmp_path, {part.customer: part.limits for part in played}, seed=seed) as regions:
        found = play(regions, played, 2 * WINDOW + (LEAD + CUT + 6 if cut else 10), seed=seed, cut=cut or "hole")
        print(*notes(regions), sep="\n")
    assert not shown(found)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_hub_does_not_add_latency_to_requests(tmp_path: Path, seed: int) -> None:
    measured = latency.measure(tmp_path, 8, seed)
    latency.table(measured, print)
    assert not latency.faults(measured)


@pytest.mark.skipif(clocks.LIBRARY is None, reason="there is no libfaketime on this machine")
@pytest.mark.parametrize("seconds", [0.5, -0.5])
def test_clock_of_a_process_can_be_shifted(seconds: float) -> None:
    environ = clocks.ahead(seconds)  # `ahead` itself checks that the clock is shifted.
    assert environ["FAKETIME"] == f"{seconds:+.12g}s"


@pytest.mark.skipif(clocks.LIBRARY is None, reason="there is no libfaketime on this machine")
def test_a_command_runs_at_another_moment() -> None:
    command = [sys.executable, "-m", clocks.__name__, "2028-02-29T23:30", "date", "--utc", "+%F %R"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "2028-02-29 23:30\n"


def test_refusal_is_wrong_if_the_window_and_a_cell_held_less() -> None:
    passed = [float(number) for number in range(60)]
    assert wrongly([59.5], passed, 60, 60) == 0
    assert wrongly([61.0], passed, 60, 60) == 0, "a cell's time may be over before it is seen"
    assert wrongly([63.0], passed, 60, 60) == 1


def found(**changed: object) -> Found:
    """Return a good result except for these changes."""
    part = Part("calm", 60)
    good = Found(part, 60.0, 60, 100, 60.0, 90, 90, {}, 1, 0, 0.0, 10)
    return Found(**{**good.__dict__, **changed})


def test_long_requests_reveal_a_machine_that_stood_still() -> None:
    assert not stood_still([found(longest=0.39), found(longest=1.0, part=Part("calm", 60, "eventual"))])
    assert stood_still([found(), found(longest=0.41)])


def test_result_outside_a_bound_has_a_fault() -> None:
    assert not found().faults
    assert "61 passed in a window" in found(worst=61).faults[0]
    assert "2 of 100 were refused" in found(refused_wrongly=2).faults[0]
    assert "the upstream 91" in found(arrived=91).faults[0]
    assert "not answered" in found(lost={"none": 1}).faults[0]
    assert "MISSED" in line(found(worst=61))
