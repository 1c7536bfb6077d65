"""The command-line options of `python -m loadtest.neighbours`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.neighbours.events import EVENTS
from loadtest.neighbours.kinds import FEW, KINDS
from loadtest.neighbours.peers import STARTS


@dataclass(frozen=True)
class Options:
    """The parsed options. `seconds` is the length of each flood. `goal` multiplies the permitted waits."""

    kinds: tuple[str, ...]
    peers: tuple[str, ...]
    seconds: float
    connections: int
    rate: float
    workers: int
    python: Path
    goal: float
    cores: tuple[int, int]
    from_64: bool
    through_trusted_proxy: bool
    during: str | None
    json: Path | None
    markdown: Path | None


def parse(argv: Sequence[str]) -> Options:
    """Parse the arguments. An invalid argument ends the program with status 2 and a line with the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.neighbours",
        description="The waits of a well-behaved client beside one bad neighbour after another. Exit status 1: a row "
        "of edgeproxy misses the goal.",
    )
    add = parser.add_argument
    add("--kinds", type=_names(tuple(KINDS)), metavar="A,B", help=f"of {', '.join(KINDS)}; few: {', '.join(FEW)}")
    add("--peers", type=_names(tuple(STARTS)), metavar="A,B", help=f"of {', '.join(STARTS)}")
    add("--seconds", type=float, default=5.0, help="of each flood (default %(default)s)")
    add("--connections", type=int, default=6, help="processes of the neighbour (default %(default)s)")
    add("--rate", type=float, default=50.0, help="requests/s of the client, kept and new each (default %(default)s)")
    add("--workers", type=int, default=1, help="of edgeproxy (default %(default)s)")
    add(
        "--python", type=Path, default=Path(sys.executable), help="whose edgeproxy is measured (default: these sources)"
    )
    add("--goal", type=float, default=1.0, help="factor of the permitted waits, for noisy machines")
    add("--cores", type=_cores, default=_default_cores(), metavar="PEER,OTHERS", help="default: first and last")
    add("--from-64", action="store_true", help="over IPv6 from addresses of one /64, in a network namespace (root)")
    add("--through-trusted-proxy", action="store_true", help="all clients over the HTTP/2 connections of one HAProxy")
    add("--during", choices=tuple(EVENTS), help="what edgeproxy does in the middle of each flood")
    add("--json", type=Path, metavar="FILE", help="write the rows")
    add("--markdown", type=Path, metavar="FILE", help="write the table as a page")
    given = parser.parse_args(argv)
    elsewhere = given.through_trusted_proxy or given.during or given.workers > 1
    given.peers = given.peers or (("edgeproxy",) if elsewhere else tuple(STARTS))
    given.kinds = given.kinds or tuple(KINDS)
    # The path is not resolved. In a virtual environment the interpreter is a link, and Python finds the environment by
    # the path of the link.
    given.python = given.python.absolute()
    if given.from_64:
        given.connections = max(10, given.connections)
    return Options(**vars(given))


def _default_cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]


def _cores(text: str) -> tuple[int, int]:
    peer, others = map(int, text.split(","))
    return peer, others


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if names == ("few",):
            return FEW
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return names

    return read
