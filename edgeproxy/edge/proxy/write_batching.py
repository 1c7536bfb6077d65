"""When a worker sends what it writes: at once while it has time, or a turn's writes together while it is busy.

A write that goes out at once wakes its reader at once. While the worker has time, this saves the reader the rest of the
turn. While it is busy it costs CPU on both sides: the reader wakes for each message instead of for many.

How busy a loop is shows in how long its turns take, as what is ready waits for what is before it. One turn is timed at
each sample of the loop (overload.py), so that a request costs nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from statistics import median
from time import perf_counter
from weakref import WeakSet

BUSY_SECONDS, CALM_SECONDS = 0.0002, 0.00008
"""Seconds of a turn from which on writes are batched, and below which they are sent at once again.

They lie apart because batching shortens turns: of the same requests, by as much as it saves.
"""
TURNS = 5
"""Turns whose median decides: one that the kernel interrupted says nothing."""
BATCH_BYTES_MAX = 65536
"""Bytes of a connection that wait for the end of a turn; with more they are sent at once."""


class WriteBatching:
    """The connections of a worker, and whether what they write is batched."""

    def __init__(self, observe: Callable[[float], None] = lambda _: None) -> None:
        """`observe`: notes the length of a turn that was timed."""
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
        """Take note of how long a turn took."""
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
        # The loop looks for what is ready once before the next callback.
        self._begun = perf_counter()
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self.record_turn(perf_counter() - self._begun)
