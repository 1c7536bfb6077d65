"""The arguments of the command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from edgeproxy.config.units import read_wait
from loadtest.faults import FAULTS
from loadtest.workload import WORKLOADS

RESULTS = Path("var/loadtest")


def edges(given: str) -> dict[str, str]:
    """`REGION=URL,…` as a mapping."""
    found = {}
    for pair in given.split(","):
        region, _, url = pair.partition("=")
        if not region or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise argparse.ArgumentTypeError(f"{pair!r} is not REGION=URL, such as eu-west=http://10.0.0.5:8080")
        found[region] = url.rstrip("/")
    return found


def seconds(given: str) -> float:
    """Parse a time such as 80ms, or a number of seconds."""
    try:
        return read_wait(given if given[-1:].isalpha() else f"{given}s")
    except PydanticCustomError as error:
        raise argparse.ArgumentTypeError(f"{given!r}: {error}") from None


def positive(given: str) -> float:
    """A number above zero."""
    number = float(given)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{given} is not a number above zero")
    return number


def processes(given: str) -> int:
    """Parse the number of the generator's workers."""
    if not given.isdigit() or not 1 <= int(given) <= 64:
        raise argparse.ArgumentTypeError(f"{given} is not a number from 1 to 64")
    return int(given)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; exits with 2 if they are unusable."""
    parser = argparse.ArgumentParser(
        "edgeproxy-loadtest",
        description="Load three regions, lose one of them, and say whether latency, limits and counts held. "
        "Exit code 0: pass, 1: fail, 2: unusable arguments or workload, 3: invalid, the generator spoilt the run.",
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--smoke", action="store_true", help="half a minute, for CI; by default three minutes at 600/s")
    which.add_argument("--soak", action="store_true", help="an hour")
    which.add_argument("--workload", type=Path, metavar="FILE", help=f"another one than those of {WORKLOADS.name}/")
    add("--seconds", type=positive, metavar="N", help="that are judged; the shape is stretched or shortened")
    add("--rate", type=positive, metavar="N", help="requests/s at the beginning; the shape's other rates change alike")
    add("--processes", type=processes, default=1, metavar="N", help="of the generator: one gives some 3000/s")
    add("--edges", type=edges, metavar="REGION=URL,…", help="load these, and start nothing")
    add(
        "--direct", type=edges, default={}, metavar="REGION=URL,…",
        help="with --edges: the upstream of each region itself, for the control",
    )  # fmt: skip
    add("--unused", action="store_true", help="with --edges: nobody used these keys lately; first windows are judged")
    add(
        "--distance", type=seconds, default=0.0, metavar="80ms", help="with --edges: the way to another region and back"
    )
    add(
        "--keys", type=Path, metavar="FILE", help="with --edges: JSON, customer: key; otherwise key-of-CUSTOMER is sent"
    )
    add("--locustfile", type=Path, metavar="FILE", help="instead of loadtest/locustfile.py, on which it is built")
    add("--against", type=Path, metavar="FILE", help="figures.json of an earlier run, to compare with")
    add("--out", type=Path, metavar="DIRECTORY", help=f"for the report; by default a new one in {RESULTS}/")
    faults = "; ".join(f"{name}: {fault.what}" for name, fault in FAULTS.items())
    add("--inject", choices=FAULTS, metavar="FAULT", help=f"spoil the run, to see that it is found. {faults}")
    given = parser.parse_args(arguments)
    if given.edges is None and (given.direct or given.keys or given.distance or given.unused):
        parser.error("--direct, --distance, --keys and --unused are for --edges")
    if given.edges is not None and given.inject:
        parser.error("--inject is not for --edges")
    if given.inject == "lost-worker" and given.processes < 2:
        parser.error("--inject lost-worker needs --processes 2")
    if given.locustfile is not None and not given.locustfile.is_file():
        parser.error(f"--locustfile: {given.locustfile} is not there")
    if given.workload is None:
        given.workload = WORKLOADS / f"{'smoke' if given.smoke else 'soak' if given.soak else 'full'}.yaml"
    return given
