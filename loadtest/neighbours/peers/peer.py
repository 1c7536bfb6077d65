"""A peer that serves, and its place."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from loadtest.bench.child import Child, tree
from loadtest.neighbours.materials import Materials
from loadtest.neighbours.neighbour import Services
from loadtest.testbed.http_client import ask

HOST, HOST_6 = "127.0.0.1", "::1"
START_SECONDS = 40.0
PATHS = ("/small", "/chunks", "/sink", "/hang", "/interim", "/text", "/ws", "/ws-down")
"""Paths of the hostile service that every peer passes on."""


@dataclass(frozen=True)
class Place:
    """The place of a peer: its folder, cores and services. `edge` are further settings of edgeproxy; with `six` it
    serves on ::1 too."""

    folder: Path
    core: int
    other_core: int
    services: Services
    materials: Materials
    python: Path
    workers: int
    edge: Mapping[str, Any]
    six: bool

    def listeners(self, port: int) -> list[str]:
        """The addresses of a listener."""
        return [f"{HOST}:{port}", *([f"[{HOST_6}]:{port}"] if self.six else [])]


@dataclass
class Running:
    """A peer that serves. `doors` are the ports of its listeners by name; `again` starts it once more beside itself."""

    name: str
    place: Place
    child: Child
    doors: dict[str, int]
    again: Callable[[], Child] | None = None

    def ready(self) -> None:
        """Wait until it relays. Raises RuntimeError with its last words if it does not."""
        self.child.wait_until(lambda: _relays(self.doors["plain"]), START_SECONDS, "relayed a request")

    def workers(self) -> set[int]:
        """All its processes but the first."""
        return set(tree(self.child.pid)[1:])

    def stop(self) -> None:
        """End it."""
        self.child.stop()

    def spare_the_worker(self) -> None:
        """Move the first process, which serves no requests, to the other core."""
        os.sched_setaffinity(self.child.pid, {self.place.other_core})


def _relays(port: int) -> bool:
    try:
        return ask(port, "/ok").status == 200
    except (OSError, HTTPException):
        return False
