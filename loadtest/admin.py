"""Samples of edges during a run, once a second: age of the hub's data, unshipped usage, and CPU of their workers."""

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
"""Seconds per tick, the unit of the kernel's CPU times."""


class Sampler:
    """Reads each admin listener, from `with` to its end."""

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
        """Return samples by region; `at` is seconds after `begin` (Unix seconds). A failed read leaves no sample."""
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
    """Return the figures of an answer of `/status`."""
    hub, usage = status["hub"], status["usage"]
    age = hub.get("age_s")
    found = {"unshipped": float(usage["unshipped"]), "spool_bytes": float(usage["spool_bytes"])}
    return found if age is None else found | {"sync_age_s": float(age)}


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """Return the CPU seconds of each process since its start. Ended processes are left out."""
    found = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = (int(fields[11]) + int(fields[12])) * TICK
    return found


def cores_of(before: Mapping[int, float], now: Mapping[int, float], seconds: float) -> float:
    """Return how many cores the processes used in these seconds. New processes started meanwhile."""
    return sum(used - before.get(pid, 0.0) for pid, used in now.items()) / seconds
