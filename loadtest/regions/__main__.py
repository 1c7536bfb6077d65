"""Three regions on this machine: real edges with two workers each, a real Redis, and an ocean between them.

Without --scenario they run until Ctrl-C, to be looked at. With it, the scenarios of rate limits that several regions
share are played on them. A table shows the excess over each limit; the exit code is 1 if an excess is above the
accepted one.
"""

import argparse
import io
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from loadtest.regions import clocks, latency
from loadtest.regions.console import CUSTOMERS, Console
from loadtest.regions.play import HEAD, LEAD, Found, line, notes, play
from loadtest.regions.scenarios import CUT, MODES, SCENARIOS, Part, parts
from loadtest.regions.world import World
from loadtest.testbed.edge import Edge
from loadtest.testbed.redis import SERVER

LATENCY = "latency"
AFTER = 6.0
"""Seconds that the scenario continues after a cut, beyond a window."""
ROUNDS = 8
"""Rounds of the latency measurement."""

Say = Callable[..., None]


def look(folder: Path, given: argparse.Namespace, say: Say) -> int:
    """Run the regions and execute typed commands until Ctrl-C."""
    with World(folder, CUSTOMERS, seed=given.seed, prepare=clocks_of(given)) as world:
        console = Console(world)
        say(console.welcome())
        for typed in sys.stdin:
            say(console.obey(typed))
        signal.pause()  # Nothing more can be typed.
    return 0


def table(folder: Path, names: Iterable[str], given: argparse.Namespace, say: Say) -> int:
    """Play scenarios and print a table. Returns 1 if one is outside the accepted range."""
    found: list[Found] = []
    expected = parts([name for name in names if name in SCENARIOS], given.limits, given.mode, given.window)
    for number, (together, seconds) in enumerate(phases(expected, given.window)):
        customers = {part.customer: part.limits for part in together}
        with World(folder / f"{number}", customers, seed=given.seed, prepare=clocks_of(given)) as world:
            played = play(world, together, seconds, seed=given.seed, cut=given.cut)
            if not found:
                say(HEAD)
            for one in played:
                say(line(one), *one.faults, sep="   ")
            for note in notes(world):
                say(note)
            found += played
    if given.json:
        Path(given.json).write_bytes(orjson.dumps([one.row() for one in found], option=orjson.OPT_INDENT_2))
    return int(any(one.faults for one in found))


def phases(wanted: Sequence[Part], window: float) -> list[tuple[list[Part], float]]:
    """Return the parts that are played at once, with their seconds."""
    calm = [part for part in wanted if not part.played.cut]
    cut = [part for part in wanted if part.played.cut]
    both = (calm, 2 * window + 10), (cut, LEAD + window + CUT + window + AFTER)
    return [(together, seconds) for together, seconds in both if together]


def latencies(folder: Path, given: argparse.Namespace, say: Say) -> int:
    """Measure a request's latency with a near, a distant and an unreachable hub. Returns 1 if they differ."""
    measured = latency.measure(folder, ROUNDS, given.seed)
    latency.table(measured, say)
    faults = latency.faults(measured)
    say("the same within what the rounds of one setting differ by" if not faults else "\n".join(faults))
    return int(bool(faults))


def clocks_of(given: argparse.Namespace) -> Callable[[str, Edge], None]:
    """Return the function that sets an edge's clock, which changes it only with `--skew`."""

    def prepare(region: str, edge: Edge) -> None:
        if given.skew and region in clocks.SKEWS:
            edge.environ |= clocks.ahead(clocks.SKEWS[region])

    return prepare


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    names = [*SCENARIOS, LATENCY]
    parser = argparse.ArgumentParser(
        "scripts/regions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def some_of(known: Sequence[str], said: str) -> list[str]:
        if unknown := {*said.split(",")} - {*known}:
            raise argparse.ArgumentTypeError(f"not {', '.join(sorted(unknown))}, but of {', '.join(known)}")
        return said.split(",")

    def numbers(said: str) -> list[int]:
        return [int(part) for part in said.split(",")]

    add: Any = parser.add_argument
    add("--scenario", metavar="NAME,…", type=partial(some_of, [*names, "all"]), help=f"all, or of {', '.join(names)}")
    add("--limits", metavar="L,…", type=numbers, default=[60, 600, 10_000], help="60,600,10000")
    add("--mode", metavar="MODE,…", type=partial(some_of, MODES), default=list(MODES), help=f"of {', '.join(MODES)}")
    add("--window", metavar="S", type=float, default=60.0, help="seconds that a limit is for: 60")
    add("--cut", choices=("cut", "hole"), default="hole", help="how the hub is cut off: refused, or without an answer")
    add("--skew", action="store_true", help="one region's wall clock is 500 ms ahead, another's 500 ms behind")
    add("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="as printed by another run")
    add("--json", metavar="FILE", help="the figures of the scenarios for a file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command. Returns its exit code: 2 if this machine cannot play scenarios."""
    given = options(arguments)
    say = partial(print, file=sys.stdout, flush=True)
    if SERVER is None:
        say("scripts/regions needs redis-server or valkey-server, and neither is on this machine")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = monotonic()
    say(f"seed {given.seed}")
    # Only tests show the output of edges.
    with tempfile.TemporaryDirectory() as created, redirect_stdout(io.StringIO()):
        folder = Path(created)
        try:
            if given.scenario is None:
                return look(folder, given, say)
            names = [*SCENARIOS, LATENCY] if "all" in given.scenario else given.scenario
            outside = table(folder / "scenarios", names, given, say)
            if LATENCY in names:
                outside |= latencies(folder / LATENCY, given, say)
        except KeyboardInterrupt:
            return 130
    say(f"{monotonic() - began:.0f} s")
    return outside


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
