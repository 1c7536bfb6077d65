"""`python -m loadtest.regions.plots`: simulate hosts, draw docs/limits/regions-*.svg, print the tables of regions.md.

    --figures FILE    read the figures from FILE, or write them there where it does not exist

Takes about ten minutes on two processors; drawing alone a few seconds.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.regions.simulate import SCENARIOS, Found, Way, average, play, round_trips, window

PAGES = Path(__file__).parents[2] / "docs" / "limits"
HOSTS = (2, 6, 20, 50, 100, 300, 1000)
LIMITS = (60, 600, 10_000)
TICKS = (0.1, 0.3, 1.0, 3.0, 10.0)
WAYS: tuple[Way, ...] = ("bounded", "eventual", "strict", "delta")

STEADY, ATTACK, AT_ONCE, ONE_BY_ONE, ROAMING, BELOW = (
    "steady 3 L over all hosts",
    "attack 20 L at all hosts",
    "burst everywhere at once from idle",
    "burst host by host, 1 s apart",
    "client moves every 5 s, 1.5 L",
    "0.8 L",
)
FEW = 0.005
"""A share of waiting requests below which no median is shown."""
NAMED = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True)
class Point:
    """A simulated point: `on` of `hosts` hosts are used."""

    scenario: str
    limit: int
    hosts: int
    on: int
    way: Way = "bounded"
    tick: float = 1.0

    @property
    def seeds(self) -> int:
        """The number of runs: more for few hosts, and most for one client, because their results vary more."""
        if self.scenario == ROAMING:
            return 20
        return 5 if self.on <= 20 else 2 if self.on <= 100 else 1

    @property
    def seconds(self) -> float:
        """An attack on many hosts is simulated only until its first requests leave the window; then it repeats."""
        seconds = NAMED[self.scenario].seconds
        return 66.0 if self.scenario == ATTACK and self.on >= 100 else seconds


def points() -> Iterator[Point]:
    """Yield all points."""
    for limit in LIMITS:
        for hosts in HOSTS:
            for scenario in (STEADY, ATTACK, AT_ONCE, ONE_BY_ONE, ROAMING, BELOW):
                yield Point(scenario, limit, hosts, hosts)
            for scenario in (STEADY, AT_ONCE, ONE_BY_ONE):
                if hosts > 3:
                    yield Point(scenario, limit, hosts, 3)
    for way in WAYS:
        for scenario in (STEADY, ATTACK, AT_ONCE):
            for tick in TICKS:
                if (way, tick) != ("bounded", 1.0):
                    yield Point(scenario, 600, 6, 6, way, tick)


def simulated(point: Point) -> Found:
    """Simulate one point over its seeds."""
    terms = window(point.limit, mode="eventual" if point.way == "delta" else point.way)
    scenario = replace(NAMED[point.scenario], seconds=point.seconds)
    trips = round_trips(point.on)
    return average(
        [
            play(scenario, terms, trips, seed, hosts=point.hosts, tick=point.tick, way=point.way)
            for seed in range(point.seeds)
        ]
    )


Figures = dict[Point, Found]


def figures(file: Path | None) -> Figures:
    """Return all points, simulated or read from a file."""
    if file is not None and file.exists():
        return {Point(**point): Found(**found) for point, found in json.loads(file.read_text())}
    # The long ones first.
    todo = sorted(points(), key=lambda point: -point.on)
    with ProcessPoolExecutor(2) as processes:
        found = dict(zip(todo, processes.map(simulated, todo), strict=True))
    if file is not None:
        file.write_text(json.dumps([(asdict(point), asdict(one)) for point, one in found.items()]))
    return found


# ---- pictures

INK, QUIET, RULE = "#1c2128", "#59626e", "#d5dae0"
COLOURS = ("#c05717", "#1f6fd0", "#0b8065", "#7547c4")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "regions",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "lines.linewidth": 1.6,
    "lines.markersize": 3,
}

Lines = Sequence[tuple[str, Sequence[tuple[float, float]]]]
"""Names, each with its points (x, y)."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:g}"


def _lines(axes: Axes, lines: Lines, apart: float = 0.08) -> None:
    """Draw lines with separated names at their ends. Call this after scales and limits are set."""
    ends = []
    for (name, line), colour in zip(lines, COLOURS, strict=False):
        axes.plot(*zip(*line, strict=True), marker="o", color=colour)
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(line[-1]))
        ends.append([y, x, name, colour])
    ends.sort(key=lambda end: end[0])
    for _ in range(50):
        for lower, upper in pairwise(ends):
            if (short := lower[0] + apart - upper[0]) > 0:
                lower[0] -= short / 2
                upper[0] += short / 2
        ends[0][0] = max(ends[0][0], 0.02)
    for y, x, name, colour in ends:
        axes.text(x + 0.03, y, name, transform=axes.transAxes, color=colour, va="center", clip_on=False)


def _scale(axes: Axes, of: Literal["x", "y"], ticks: Sequence[float], low: float, high: float) -> None:
    """Set a logarithmic axis, `x` or `y`, with these ticks."""
    axis = getattr(axes, f"{of}axis")
    getattr(axes, f"set_{of}scale")("log")
    getattr(axes, f"set_{of}lim")(low, high)
    axis.set_ticks(ticks, [_number(tick) for tick in ticks])
    axis.set_ticks([], minor=True)
    axes.grid(axis=of, color=RULE, linewidth=0.5)


def _panels(rows: int) -> tuple[Figure, list[Axes]]:
    """Create rows of three panels."""
    height = 0.75 + 2.1 * rows
    figure = Figure(figsize=(9.2, height))
    grid = figure.subplots(rows, 3, sharex=True, sharey="row", squeeze=False)
    figure.subplots_adjust(left=0.085, right=0.91, top=1 - 0.3 / height, bottom=0.5 / height, wspace=0.36)
    return figure, list(grid.flat)


def _save(figure: Figure, name: str) -> None:
    path = PAGES / f"regions-{name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    # Without the blanks that end lines there.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


def _by_limit(found: Figures, scenario: str, of: Callable[[Found], float], on: int = 0) -> Lines:
    several = [hosts for hosts in HOSTS if hosts > on]
    return [
        (f"L = {limit:,}", [(hosts, of(found[Point(scenario, limit, hosts, on or hosts)])) for hosts in several])
        for limit in LIMITS
    ]


def draw_hosts(found: Figures) -> None:
    """Draw the error against the number of hosts."""
    figure, panels = _panels(2)
    titles = {
        STEADY: "3 L over all hosts",
        ATTACK: "20 L at every host",
        ROAMING: "1.5 L, moves on every 5 s",
        AT_ONCE: "burst at all hosts at once",
        ONE_BY_ONE: "burst host by host, 1 s apart",
        "": "burst at once at 3 of these hosts",
    }
    for axes, (scenario, title) in zip(panels, titles.items(), strict=True):
        _scale(axes, "x", (2, 6, 20, 100, 1000), 1.7, 1200)
        _scale(axes, "y", (1, 2, 5, 10, 20, 50, 100), 0.93, 120)
        _lines(axes, _by_limit(found, scenario or AT_ONCE, lambda one: one.worst, 0 if scenario else 3))
        axes.set_title(title)
    for axes in panels[::3]:
        axes.set_ylabel("fullest minute / limit")
    for axes in panels[3:]:
        axes.set_xlabel("hosts")
    _save(figure, "hosts")


def draw_interval(found: Figures) -> None:
    """Draw the error against the sync interval."""
    figure, panels = _panels(1)
    titles = {STEADY: "3 L over all six hosts", ATTACK: "20 L at every host", AT_ONCE: "burst at all hosts at once"}
    for axes, (scenario, title) in zip(panels, titles.items(), strict=True):
        _scale(axes, "x", TICKS, 0.085, 12)
        _scale(axes, "y", (1, 1.5, 2, 3, 4, 6), 0.95, 7)
        axes.yaxis.set_ticklabels(["1", "1.5", "2", "3", "4", "6"])
        lines = [(way, [(tick, found[Point(scenario, 600, 6, 6, way, tick)].worst) for tick in TICKS]) for way in WAYS]
        _lines(axes, lines)
        axes.set_title(title)
        axes.set_xlabel("sync interval, seconds")
    panels[0].set_ylabel("fullest minute / limit")
    _save(figure, "interval")


def draw_waits(found: Figures) -> None:
    """Draw the share and length of waits against the number of hosts."""
    figure, panels = _panels(2)
    titles = {BELOW: "0.8 L over all hosts", ATTACK: "20 L at every host", AT_ONCE: "burst at all hosts at once"}
    for column, (scenario, title) in enumerate(titles.items()):
        share, median = panels[column], panels[column + 3]
        for axes in (share, median):
            _scale(axes, "x", (2, 6, 20, 100, 1000), 1.7, 1200)
            axes.grid(axis="y", color=RULE, linewidth=0.5)
        share.set_ylim(-2, 100)
        median.set_ylim(-3, 150)
        _lines(share, _by_limit(found, scenario, lambda one: 100 * one.late))
        _lines(median, _by_limit(found, scenario, lambda one: 1000 * one.median if one.late >= FEW else 0.0))
        share.set_title(title)
        median.set_xlabel("hosts")
    panels[0].set_ylabel("of those that pass, % waited")
    panels[3].set_ylabel("median wait, ms")
    _save(figure, "waits")


def draw_calls(found: Figures) -> None:
    """Draw calls of the hub against the number of hosts."""
    figure, panels = _panels(1)
    titles = {BELOW: "0.8 L over all hosts", STEADY: "3 L over all hosts", ATTACK: "20 L at every host"}
    for axes, (scenario, title) in zip(panels, titles.items(), strict=True):
        _scale(axes, "x", (2, 6, 20, 100, 1000), 1.7, 1200)
        _scale(axes, "y", (1, 10, 100, 1000, 10_000), 0.5, 10_000)
        _lines(axes, _by_limit(found, scenario, lambda one: one.calls))
        axes.set_title(title)
        axes.set_xlabel("hosts")
    panels[0].set_ylabel("hub calls a second")
    _save(figure, "calls")


# ---- tables


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [list(map(str, head)), *(list(map(str, row)) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _times(worst: float) -> str:
    return f"{worst:.3f}" if worst < 1.1 else f"{worst:.2f}" if worst < 10 else f"{worst:.1f}"


def tables(found: Figures) -> str:
    """Return all tables of docs/limits/regions.md."""
    by_hosts = [
        [f"{scenario}, L = {limit:,}", *(_times(found[Point(scenario, limit, hosts, hosts)].worst) for hosts in HOSTS)]
        for scenario in (STEADY, ATTACK, AT_ONCE, ONE_BY_ONE, ROAMING)
        for limit in LIMITS
    ]
    on_three = [
        [f"{scenario}, L = {limit:,}", *(_times(found[Point(scenario, limit, hosts, 3)].worst) for hosts in HOSTS[1:])]
        for scenario in (STEADY, AT_ONCE, ONE_BY_ONE)
        for limit in LIMITS
    ]
    by_tick = [
        [f"{scenario}, {way}", *(_times(found[Point(scenario, 600, 6, 6, way, tick)].worst) for tick in TICKS)]
        for scenario in (STEADY, ATTACK, AT_ONCE)
        for way in WAYS
    ]
    waits = [
        [
            f"{scenario}, L = {limit:,}",
            *(
                f"{100 * one.late:.1f} %" + (f", {1000 * one.median:.0f} ms" if one.late >= FEW else "")
                for one in _of(found, scenario, limit)
            ),
        ]
        for scenario in (BELOW, STEADY, ATTACK, AT_ONCE, ROAMING)
        for limit in LIMITS
    ]
    calls = [
        [f"{scenario}, L = {limit:,}", *(f"{one.calls:,.1f}" for one in _of(found, scenario, limit))]
        for scenario in (BELOW, STEADY, ATTACK)
        for limit in LIMITS
    ]
    return "\n\n".join(
        [
            table(["fullest minute / L, by hosts", *HOSTS], by_hosts),
            table(["three of so many hosts", *HOSTS[1:]], on_three),
            table(["L = 600, six hosts, by sync interval", *(f"{tick:g} s" for tick in TICKS)], by_tick),
            table(["of those let through, waited; median", *HOSTS], waits),
            table(["hub calls a second", *HOSTS], calls),
        ]
    )


def _of(found: Figures, scenario: str, limit: int) -> list[Found]:
    return [found[Point(scenario, limit, hosts, hosts)] for hosts in HOSTS]


def main() -> None:
    """Simulate, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path)
    found = figures(parser.parse_args().figures)
    with mpl.rc_context(STYLE):
        for draw in (draw_hosts, draw_interval, draw_waits, draw_calls):
            draw(found)
    print(tables(found))


if __name__ == "__main__":
    main()
