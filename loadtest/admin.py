"""What edges say of themselves meanwhile, once a second: the age of what the hub said, and usage not yet shipped."""

import threading
import time
from http.client import HTTPException
from typing import Any, Self

from loadtest.topology import Topology
from tests.support.edge import Edge

EVERY = 1.0


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
        while not self._over.wait(EVERY):
            at = time.time()
            try:
                self._found[region].append({"at": at, **figures_of(edge.status())})
            except (OSError, HTTPException, AssertionError, KeyError, TypeError, ValueError):
                continue  # It is lost, or not quite there yet.


def figures_of(status: dict[str, Any]) -> dict[str, float]:
    """Of an answer of `/status`."""
    hub, usage = status["hub"], status["usage"]
    age = hub.get("age_s")
    found = {"unshipped": float(usage["unshipped"]), "spool_bytes": float(usage["spool_bytes"])}
    return found if age is None else found | {"sync_age_s": float(age)}
