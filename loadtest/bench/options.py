"""The options of `scripts/bench`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.measure.crowd import SIZES
from loadtest.bench.peers import HTTP2_PEERS, PEERS
from loadtest.bench.scenario import SCENARIOS

DEFAULT_PARTS = ("cpu", "http2", "latency", "memory", "micro", "policies", "tls")
PARTS = (*DEFAULT_PARTS, "flood", "instructions", "many", "many-http2", "many-memory", "workers")
"""Instructions take a minute for each scenario and version, `workers` eight of them, and `many` some two minutes a
round, as does `many-http2` for each number of customers. `flood` and `many-memory` take some two minutes.
"""
_NAMES = tuple(dict.fromkeys(peer.name for peer in (*PEERS, *HTTP2_PEERS)))


@dataclass(frozen=True)
class Options:
    """`seconds` are of one slice; `json` is None for a file named after the time."""

    rounds: int
    seconds: int
    connections: int
    only: tuple[str, ...]
    scenarios: tuple[str, ...]
    customers: tuple[int, ...]
    """The numbers of customers of the parts `many`, `many-http2` and `many-memory`."""
    idle: int
    """The idle connections of the parts memory and tls."""
    parts: tuple[str, ...]
    python: Path
    against: str | None
    """Another version of edgeproxy, a commit of this repository, that takes its turns beside this one."""
    json: Path | None
    quick: bool
    proxy_core: int
    load_core: int


def parse(argv: Sequence[str]) -> Options:
    """Parse the options. Exits with 2 and the error if they are unusable."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="What a request costs through edgeproxy and its peers, on one core, in one run.",
        epilog="Figures of different runs differ by the machine's mood; the ratios within a round do not.",
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s and four scenarios: under 90 s")
    parser.add_argument("--rounds", type=_count, help="how often each peer takes its turn (default 5)")
    parser.add_argument("--seconds", type=_count, help="length of a slice (default 2)")
    parser.add_argument("--connections", type=_count, default=64, help="kept alive by the load (default %(default)s)")
    parser.add_argument("--only", type=_names(_NAMES), metavar="PEER,…", help=f"of {', '.join(_NAMES)}")
    parser.add_argument(
        "--scenarios", type=_names(tuple(SCENARIOS)), metavar="NAME,…", help=f"of {', '.join(SCENARIOS)}"
    )
    parser.add_argument(
        "--customers",
        type=_names(tuple(map(str, SIZES))),
        metavar="NUMBER,…",
        help=f"in the parts of many customers: of {', '.join(map(str, SIZES))} (default all)",
    )
    parser.add_argument(
        "--idle", type=_idle, default=2000, help="idle connections in the parts memory and tls (default %(default)s)"
    )
    parser.add_argument("--parts", type=_names(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--python",
        type=Path,
        help="interpreter for aiohttp, and the edgeproxy installed there (default: the bench's own, and these sources)",
    )
    parser.add_argument("--against", metavar="REF", help="measure edgeproxy of that commit too, and compare the two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default bench-results/TIME.json")
    parser.add_argument("--cores", type=_cores, default=(0, 1), metavar="PROXY,LOAD", help="default 0,1")
    given = parser.parse_args(argv)
    proxy_core, load_core = given.cores
    python = given.python or Path(sys.executable)
    if not python.is_file():
        parser.error(f"--python: {python} is not there")
    return Options(
        rounds=given.rounds or (2 if given.quick else 5),
        seconds=given.seconds or (1 if given.quick else 2),
        connections=given.connections,
        only=given.only or _NAMES,
        scenarios=given.scenarios or (("small", "rich", "vary", "429") if given.quick else tuple(SCENARIOS)),
        customers=tuple(map(int, given.customers or SIZES)),
        idle=given.idle,
        parts=given.parts or DEFAULT_PARTS,
        # Not resolved: the interpreter of a virtual environment is a link, and finds its environment by its path.
        python=python.absolute(),
        against=given.against,
        json=given.json,
        quick=given.quick,
        proxy_core=proxy_core,
        load_core=load_core,
    )


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("a whole number from 1 to 1000")
    return number


def _idle(text: str) -> int:
    number = int(text)
    if not 100 <= number <= 10_000:
        raise argparse.ArgumentTypeError("a whole number from 100 to 10000")
    return number


def _cores(text: str) -> tuple[int, int]:
    proxy, load = map(int, text.split(","))
    if proxy == load:
        raise argparse.ArgumentTypeError("two different cores")
    return proxy, load


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A reader of comma-separated names out of `known`."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return read
