"""What is seen of edges meanwhile, once a second: the age of what the hub said, usage not yet shipped, and the CPU that
their workers take."""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from loadtest.testbed.edge import Edge
from loadtest.topology import Topology

EVERY = 1.0
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds of the unit in which the kernel counts a process's time."""


class Sampler:
    """Asks each admin listener, from `with` to its end."""

    def __init__(self, topology: Topology) -> None:
        self._edges = dict(topology.edges)
        self._over = threading.Event()
        self._found: dict[str, list[dict[str, float]]] = {region: [] for region in self._edges}
        self._threads = [
            threading.Thread(target=self._sample, args=(region, edge), daemon=True)
            for region, edge in self._edges.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5.0)

    def samples(self, begin: float) -> dict[str, list[dict[str, float]]]:
        """By region; `at` is seconds after `begin` (Unix seconds). Where a region did not answer there is none."""
        return {
            region: [one | {"at": one["at"] - begin} for one in found if one["at"] >= begin]
            for region, found in self._found.items()
        }

    def _sample(self, region: str, edge: Edge) -> None:
        since, before = time.time(), dict[int, float]()
        while not self._over.wait(EVERY):
            at = time.time()
            try:
                status = edge.status()
                used = cpu_seconds(worker["pid"] for worker in status["workers"])
                cores = cores_of(before, used, at - since)
                since, before = at, used
                self._found[region].append({"at": at, "workers_cores": cores, **figures_of(status)})
            except (OSError, HTTPException, AssertionError, KeyError, TypeError, ValueError):
                continue  # It is lost, or not quite there yet.


def figures_of(status: dict[str, Any]) -> dict[str, float]:
    """Of an answer of `/status`."""
    hub, usage = status["hub"], status["usage"]
    age = hub.get("age_s")
    found = {"unshipped": float(usage["unshipped"]), "spool_bytes": float(usage["spool_bytes"])}
    return found if age is None else found | {"sync_age_s": float(age)}


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """The CPU time that each process has taken since it began; those that are gone are left out."""
    found = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = (int(fields[11]) + int(fields[12])) * TICK
    return found


def cores_of(before: Mapping[int, float], now: Mapping[int, float], seconds: float) -> float:
    """How many cores processes took in these seconds. One that was not there before has begun meanwhile."""
    return sum(used - before.get(pid, 0.0) for pid, used in now.items()) / seconds
