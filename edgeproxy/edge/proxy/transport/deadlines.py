"""The worker's only timer: twice a second it finds the connections that are past their deadline.

A deadline is an attribute that a connection sets as it goes, so that it costs one store. Two `call_later` per request
would cost 2.4 µs. The price is precision: a deadline may be noticed half a second late, and no code relies on more.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

SWEEP_SECONDS = 0.5
"""Seconds between two sweeps."""

NEVER = float("inf")


class Timed(Protocol):
    """An object with a deadline in monotonic seconds."""

    deadline: float

    def on_timeout(self) -> None:
        """End, or set a new deadline: this one has passed."""


class Deadlines:
    """The timer of a worker, with all timed objects and all periodic functions."""

    def __init__(self) -> None:
        self.timed: set[Timed] = set()
        self._sweeps: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add_sweep(self, look: Callable[[], None]) -> None:
        """Call `look` at every sweep; it must be quick."""
        self._sweeps.append(look)

    def start(self) -> None:
        """Sweep from now on, until `stop`."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def stop(self) -> None:
        """Stop sweeping."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        # The next sweep is set first, so that an error at a connection's end does not stop the timer.
        self.start()
        now = monotonic()
        for late in [timed for timed in self.timed if timed.deadline < now]:
            late.on_timeout()
        for look in self._sweeps:
            look()
