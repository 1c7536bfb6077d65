"""Events of an edge in the middle of a flood: a reload, an upgrade and a drain."""

import os
import signal
import time
from collections.abc import Callable
from http.client import HTTPException

from loadtest.bench.child import Child
from loadtest.neighbours.peers.peer import START_SECONDS, Running
from loadtest.testbed.http_client import ask

DRAIN_SECONDS = 2.0 + 8.0
"""The edge's setting `drain`, plus the time for shipping its usage and for the exit."""


def reload(running: Running) -> None:
    """Reload the edge's configuration file. Raises RuntimeError if the edge refuses."""
    answer = ask(running.doors["admin"], "/reload", method="POST")
    if answer.status != 200:
        raise RuntimeError(f"POST /reload: {answer}")


def upgrade(running: Running) -> None:
    """Start a second edge beside the running one, and end the old edge when the new edge is ready (docs/operations)."""
    assert running.again is not None
    old, running.child = running.child, running.again()
    running.child.wait_until(lambda: _has_started(running), START_SECONDS, "served")
    running.spare_the_worker()
    _end(old)


def drain(running: Running) -> None:
    """Send SIGTERM. Raises RuntimeError if the edge does not end in time."""
    _end(running.child)


EVENTS: dict[str, Callable[[Running], None]] = {"reload": reload, "upgrade": upgrade, "drain": drain}


def _has_started(running: Running) -> bool:
    """Return whether the new edge is ready and has all workers. The process that forks the workers does not count."""
    try:
        ready = ask(running.doors["admin"], "/readyz").status == 200
    except (OSError, HTTPException):
        return False
    return ready and len(running.workers()) > running.place.workers


def _end(child: Child) -> None:
    os.kill(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_SECONDS
    while child.running():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the edge did not end within {DRAIN_SECONDS:.0f} s of SIGTERM")
        time.sleep(0.02)
