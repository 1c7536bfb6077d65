"""When a worker sends its writes: at once while it has time, or one turn's writes together while it is busy.

An immediate write wakes its reader at once. While the worker has time, this saves the reader the rest of the turn.
While the worker is busy, it costs CPU on both sides: the reader wakes for each message instead of for many.

The length of its turns shows how busy a loop is, because ready events wait for earlier ones. One turn is timed at each
sample of the loop (overload.py), so that requests cost nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter
from weakref import WeakSet

BUSY_SECONDS, CALM_SECONDS = 0.0002, 0.00008
"""Writes are batched while turns take longer than the first number of seconds, until they take less than the second.

The two are apart because batching makes turns shorter, by the time that it saves.
"""
TURNS = 5
"""The median of this many turns decides: a turn that the kernel interrupted says nothing."""
BATCH_BYTES_MAX = 65536
"""Bytes of a connection that wait for the end of a turn; more bytes are sent at once."""


class WriteBatching:
    """The connections of a worker, and whether their writes are batched."""

    def __init__(self, observe: Callable[[float], None] = lambda _: None) -> None:
        """`observe` records the length of a timed turn."""
        self._observe = observe
        self.is_on = False
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()
        self._turns: deque[float] = deque(maxlen=TURNS)
        self._begun = 0.0

    def add(self, transport: asyncio.WriteTransport) -> None:
        """Add a connection; it leaves when its transport is gone."""
        self._transports.add(transport)
        self._apply(transport)

    def time_turn(self) -> None:
        """Time the next turn of the loop."""
        asyncio.get_running_loop().call_soon(self._begin_turn)

    def record_turn(self, seconds: float) -> None:
        """Record the length of a turn."""
        self._observe(seconds)
        turns = self._turns
        turns.append(seconds)
        typical = median(turns)
        is_on = typical > (CALM_SECONDS if self.is_on else BUSY_SECONDS)
        if is_on is not self.is_on and len(turns) == TURNS:
            self.is_on = is_on
            for transport in self._transports:
                self._apply(transport)

    def _apply(self, transport: asyncio.WriteTransport) -> None:
        if not transport.is_closing():
            transport.set_write_buffer_limits(BATCH_BYTES_MAX if self.is_on else 0)

    def _begin_turn(self) -> None:
        # The loop polls for events once before the next callback.
        self._begun = perf_counter()
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.record_turn(perf_counter() - self._begun)
