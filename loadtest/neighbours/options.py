"""What `python -m loadtest.neighbours` can be asked."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.neighbours.kinds import KINDS
from loadtest.neighbours.peers import NAMES


@dataclass(frozen=True)
class Options:
    """`seconds` of each flood; `goal` multiplies the waits that are permitted."""

    kinds: tuple[str, ...]
    peers: tuple[str, ...]
    seconds: float
    connections: int
    rate: float
    workers: int
    python: Path
    goal: float
    cores: tuple[int, int]
    json: Path | None
    markdown: Path | None


def parse(argv: Sequence[str]) -> Options:
    """Exits with 2 and a line that says what is wrong where they are unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.neighbours",
        description="The waits of a well-behaved client beside one bad neighbour after another. Exit status 1: a row "
        "of edgeproxy misses the goal.",
    )
    parser.add_argument("--kinds", type=_names(tuple(KINDS)), metavar="A,B", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--peers", type=_names(NAMES), metavar="A,B", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each flood (default %(default)s)")
    parser.add_argument("--connections", type=int, default=6, help="of the neighbour (default %(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s of the client (default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="of each peer (default %(default)s)")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="whose edgeproxy is measured")
    parser.add_argument("--goal", type=float, default=1.0, help="factor of the permitted waits, for noisy machines")
    parser.add_argument("--cores", type=_cores, default=_default_cores(), metavar="WORKER,OTHERS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    given = parser.parse_args(argv)
    return Options(
        kinds=given.kinds or tuple(KINDS),
        peers=given.peers or NAMES,
        seconds=given.seconds,
        connections=given.connections,
        rate=given.rate,
        workers=given.workers,
        # Not resolved: the interpreter of a virtual environment is a link, and knows by its path where it belongs.
        python=given.python.absolute(),
        goal=given.goal,
        cores=given.cores,
        json=given.json,
        markdown=given.markdown,
    )


def _default_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def _cores(text: str) -> tuple[int, int]:
    worker, others = map(int, text.split(","))
    return worker, others


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return read
