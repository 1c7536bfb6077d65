"""The latency that an edge adds at half load, and its causes: `python -m loadtest.causes [--rounds 5] [--seconds 2]`.

In each round edgeproxy, nginx + Lua and an edge that is watched from within take turns on one core, each at half of
its highest rate. For the watched edge the table shows the time that messages waited until the loop read them, the time
until the edge had written its response to them, and the time in garbage collection and page faults. The measurement
needs two cores for itself: other work would decide the p99 values. Then it shows how 64 connections fall to
two workers.
"""

import argparse
import json
import os
import re
import socket
import sys
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from urllib.request import urlopen

from loadtest.bench import ports
from loadtest.bench.child import Child
from loadtest.bench.load.paced import quantile
from loadtest.bench.measure import latency
from loadtest.bench.measure.latency import Latency
from loadtest.bench.options import parse
from loadtest.bench.peers.edge import Edge, Watched, settings
from loadtest.bench.peers.nginx import Lua
from loadtest.bench.peers.peer import Peer
from loadtest.bench.report.table import table
from loadtest.bench.stage import Stage

CONNECTIONS = 64
FAULT_SECONDS = 0.5e-6
"""The time of a minor page fault, to the order of magnitude."""


@dataclass(frozen=True)
class Found:
    """A peer's result in one round: its latency, faults per request, and the time by the monotonic clock."""

    latency: Latency
    faults: float
    window: tuple[float, float]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.causes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, choices=(1, 2))
    given = parser.parse_args(argv)
    quick = ["--quick"] if given.seconds == 1 else []
    options = parse([*quick, "--connections", str(CONNECTIONS)])
    os.sched_setaffinity(0, {options.load_core})
    peers: tuple[Peer, ...] = (Edge(), Lua(), Watched())
    found: dict[str, list[Found]] = {peer.name: [] for peer in peers}
    causes: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="edgeproxy-causes-") as folder, Stage(options, Path(folder)) as stage:
        for number in range(given.rounds):
            print(f"causes: round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
            for peer in peers:
                found[peer.name].append(measured(stage, number, peer))
            causes.append(inside(newest(Path(folder)), found[Watched.name][-1]))
        print(of_peers(found))
        print()
        print(of_causes(causes))
        print()
        print("connections of each of two workers, of 64 opened at once:", *imbalance(stage))
    return 0


def measured(stage: Stage, number: int, peer: Peer) -> Found:
    """Measure one turn of a peer that is started for it."""
    with stage.serving(peer) as running:
        rate = latency.half_load(stage, peer, running)
        workers = running.workers()
        faults, begun = sum(map(minor_faults, workers)), monotonic()
        there = latency.at_rate(stage, number, peer, running, rate)
        ended = monotonic()
        faults = sum(map(minor_faults, workers)) - faults
        return Found(there, faults / there.requests, (begun, ended))


def minor_faults(pid: int) -> int:
    """Return the minor page faults of a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def newest(folder: Path) -> Path:
    """Return the output of the last watched worker."""
    return max(folder.glob("*watched/*.json"), key=lambda file: file.stat().st_mtime)


def inside(file: Path, found: Found) -> list[float]:
    """Return the causes, as in HEADINGS, during the load."""
    body = json.loads(file.read_text())
    begun, ended = found.window

    def within(moment: float) -> bool:
        return begun <= moment <= ended

    turns = [(first, last) for first, last in pairs(body["turns"], 3) if within(first)]
    held = [seconds for moment, seconds in pairs(body["held"], 2) if within(moment)]
    pauses = [seconds for moment, seconds, _ in body["pauses"] if within(moment)]
    lengths = array("d", [last - first for first, last in turns])
    elapsed = turns[-1][1] - turns[0][0]
    return [
        quantile(list(lengths), 0.5) * 1e3,
        quantile(list(lengths), 0.99) * 1e3,
        waiting(lengths, elapsed, 0.5) * 1e3,
        waiting(lengths, elapsed, 0.99) * 1e3,
        quantile(held, 0.5) * 1e3,
        quantile(held, 0.99) * 1e3,
        len(pauses),
        max(pauses, default=0.0) * 1e3,
        sum(pauses) / elapsed * 100,
        found.faults,
        found.faults * FAULT_SECONDS * 1e3,
    ]


HEADINGS = (
    "a turn of the loop, p50, ms",
    "a turn of the loop, p99, ms",
    "a message waits to be taken up, p50, ms",
    "a message waits to be taken up, p99, ms",
    "and until what it made the edge write is out, p50, ms",
    "and until what it made the edge write is out, p99, ms",
    "garbage collections",
    "the longest of them, ms",
    "all of them, % of the time",
    "page faults a request",
    "page faults, ms a request",
)


def pairs(numbers: Sequence[float], step: int) -> list[tuple[float, float]]:
    """Return the first two of each `step` numbers."""
    return list(zip(numbers[::step], numbers[1::step], strict=True))


def waiting(lengths: Sequence[float], elapsed: float, share: float) -> float:
    """Return the longest wait for this share of messages that arrive at random: zero, or the rest of a turn."""
    ordered = sorted(lengths)
    low, high = 0.0, ordered[-1]
    for _ in range(40):
        middle = (low + high) / 2
        longer = ordered[bisect_left(ordered, middle) :]
        if (sum(longer) - middle * len(longer)) / elapsed > 1 - share:
            low = middle
        else:
            high = middle
    return high


def imbalance(stage: Stage) -> list[int]:
    """Return how many of the connections each of two workers serves."""
    place = stage.place(Edge())
    place.folder.mkdir(parents=True)
    port, admin, secure_port = ports.free(3)
    file = place.folder / "edge.yaml"
    file.write_text(json.dumps(settings(place, port, admin, secure_port) | {"workers": 2}))
    root = str(Path(__file__).parents[1])
    argv: list[str | Path] = [place.python, "-m", "edgeproxy", "edge", "-c", file]
    child = Child(argv, core=place.core, log=place.folder / "output", env={"PYTHONPATH": root}, cwd=place.folder)
    try:
        child.wait_until(lambda: len(of_workers(admin)) == 2, 20, "had two workers")
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        child.wait_until(lambda: sum(of_workers(admin)) == CONNECTIONS, 10, "had accepted all")
        shares = of_workers(admin)
        for each in sockets:
            each.close()
        return shares
    finally:
        child.stop()


def of_workers(admin: int) -> list[int]:
    """Return the connections of each worker, from the edge's metrics."""
    try:
        with urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return []
    return [int(n) for n in re.findall(r"^edge_worker_connections\{[^}]*\} (\d+)", text, re.MULTILINE)]


def of_peers(found: dict[str, list[Found]]) -> str:
    rows = [("peer", "added p50, ms", "added p99, ms", "of its core, %", "rounds disturbed")]
    for name, each in found.items():
        all_of_them = [one.latency for one in each]
        kept = latency.undisturbed(all_of_them, name)
        rows.append(
            (
                name,
                f"{median(latency.added('p50') for latency in kept):.3f}",
                f"{median(latency.added('p99') for latency in kept):.3f}",
                f"{median(latency.busy for latency in kept) * 100:.0f}",
                f"{sum(latency.disturbed for latency in all_of_them)} of {len(each)}",
            )
        )
    return table(rows)


def of_causes(causes: Sequence[Sequence[float]]) -> str:
    rows = [("cause, in the watched edge", "median of the rounds", "least", "most")]
    for heading, values in zip(HEADINGS, zip(*causes, strict=True), strict=True):
        rows.append((heading, f"{median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"))
    return table(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
