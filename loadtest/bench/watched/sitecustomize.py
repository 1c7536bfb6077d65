"""Measures an edge's worker from inside, for `python -m loadtest.causes`, which puts this directory on its path.

Python imports a module of this name automatically. In a worker it records each pause of the garbage collector, each
loop turn with input, and how long each message was held in it. At the end it writes them to a file.
"""

import asyncio
import atexit
import gc
import json
import os
import sys
from array import array
from pathlib import Path
from time import monotonic
from typing import Any

FOLDER = "EDGEPROXY_TEST_WATCHED"
"""The variable that names the folder of that file."""


class Watch:
    """The events in one worker; all times are of the monotonic clock, in seconds.

    A turn lasts from its first message until the first message of the next turn, or until the loop polls and finds
    nothing. Callbacks write at once: a message is held from the first message of its turn until it is handled.
    """

    def __init__(self) -> None:
        self.turns = array("d")
        """Begin, end and number of messages of each turn."""
        self.held = array("d")
        """The start of a message's turn, and the time until the resulting output was written."""
        self.pauses: list[tuple[float, float, int]] = []
        """When, for how long, and which generation was collected."""
        self._came: list[float] = []
        self._over = False
        self._paused = 0.0

    def collected(self, phase: str, said: dict[str, int]) -> None:
        now = monotonic()
        if phase == "start":
            self._paused = now
        else:
            self.pauses.append((self._paused, now - self._paused, said["generation"]))

    def message(self) -> None:
        now = monotonic()
        if self._over:
            self._end(now)
        if not self._came:
            asyncio.get_running_loop().call_soon(self._callbacks_done)
        self._came.append(now)

    def _callbacks_done(self) -> None:
        # The loop polls for input before it runs this callback.
        self._over = True
        asyncio.get_running_loop().call_soon(self._nothing_more)

    def _nothing_more(self) -> None:
        if self._over:
            self._end(monotonic())

    def _end(self, now: float) -> None:
        self._over = False
        came, self._came = self._came, []
        self.turns.extend((came[0], now, len(came)))

    def handled(self) -> None:
        self.held.extend((self._came[0], monotonic() - self._came[0]))

    def write(self, file: Path) -> None:
        file.write_text(json.dumps({"turns": list(self.turns), "held": list(self.held), "pauses": self.pauses}))


def watch(folder: Path) -> None:
    from edgeproxy.edge.proxy.connections.client import Client
    from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection

    watched = Watch()

    def noted(received: Any) -> Any:
        def data_received(self: Any, data: bytes) -> None:
            watched.message()
            received(self, data)
            watched.handled()

        return data_received

    for kind in (Client, UpstreamConnection):
        kind.data_received = noted(kind.data_received)  # type: ignore[method-assign]
    gc.callbacks.append(watched.collected)
    atexit.register(watched.write, folder / f"{os.getpid()}.json")


if FOLDER in os.environ and "edgeproxy.edge.proxy" in sys.orig_argv:
    watch(Path(os.environ[FOLDER]))
