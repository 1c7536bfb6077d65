"""Turns of the event loop, shared fairly: no connection keeps the others waiting for what it sends.

libuv reads one socket up to 32 times in a turn, 256 KiB each, and tiny requests, chunks and frames cost far more than
they weigh. So input that is more than one ordinary request is processed in slices. A slice is bounded in time, and so
are all slices of a turn together, however many connections wait. What a slice leaves waits in a queue, and the queue
is served round robin after the new input of a turn. The order of events in uvloop gives this: callbacks, then sockets.
Input that has had no slice yet gets every second slice, and one costly step at most runs in a turn.

A connection whose input waits pauses its transport within `data_received`: this ends libuv's loop of reads.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

SLICE_SECONDS: Final = 0.001
"""Seconds that a connection may process its input for in one turn."""

TURN_SECONDS: Final = 0.004
"""Seconds of one turn for all slices together: new input has so many, and after it the queue."""

SMALL_BYTES: Final = 1024
"""Bytes of one read that are processed at once whatever they are: a slice would cost more than it bounds."""

PIECE_BYTES: Final = 16 << 10
"""Bytes of the first piece of a connection's input; longer than most heads."""

PIECE_BYTES_MIN, PIECE_BYTES_MAX = 1 << 10, 64 << 10
"""Bytes of a piece, whatever pieces before it have cost. The longest takes some 15 ms if it holds chunks of a byte."""

PACKED_PIECE_BYTES_MAX: Final = 512
"""Bytes of a piece that is decoded in order to be read: it can become a hundred times as long."""

BULK_BYTES: Final = 64 << 10
"""Bytes of one read up to which plain bytes, of a body of known length for example, are no matter of slices."""

LONG_TURN_SECONDS: Final = 0.05
"""Seconds of a turn from which on it is reported."""

STEPS: Final = 16
"""Requests, frames or chunks after which whoever processes them looks at the clock."""


class QueuedInput(Protocol):
    """A connection with input that waits."""

    def go_on(self, until: float) -> None:
        """Process input until that time of the clock; call `Turns.wait` again if some is left."""

    def abort(self) -> None:
        """Close at once: processing has failed."""

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer, for the log."""


UNKNOWN: Final = ("other", "")
"""The description of what took a turn's time, where no slice did."""


class Turns:
    """The turns of one worker's loop. Times are seconds of `clock`; `call_soon` calls back in the next turn."""

    __slots__ = (
        "_began",
        "_call_soon",
        "_costly",
        "_ends",
        "_longest",
        "_newcomers",
        "_observe",
        "_queue",
        "_report",
        "clock",
        "until",
    )

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        observe: Callable[[float], None] = lambda _: None,
        report: Callable[[float, str, str], None] = lambda *_: None,
    ) -> None:
        """`observe`: notes the length of a turn. `report`: logs a long one, with the kind and the peer of the
        connection that had the longest slice of it."""
        self.clock = clock
        self._observe, self._report = observe, report
        self._began = 0.0
        """The beginning of the turn under way, where all of it is measured; else 0.0."""
        self._longest = (0.0, UNKNOWN)
        """The longest slice of the turn under way, and whose it was."""
        self._call_soon = call_soon
        self.until = 0.0
        """The end of the slice under way; 0.0 where there is none."""
        self._ends = 0.0
        """The end of the time that this turn has for slices of new input; 0.0 until it has any."""
        self._newcomers: deque[QueuedInput] = deque()
        """Input that has had no slice yet: it need not wait for a whole round of those that always send more."""
        self._queue: deque[QueuedInput] = deque()
        """Input of which a slice has left some."""
        self._costly: deque[QueuedInput] = deque()
        """Input whose next step cannot be divided and is known to take long."""

    @property
    def waiting(self) -> int:
        """Connections whose input waits."""
        return len(self._newcomers) + len(self._queue) + len(self._costly)

    def open(self) -> float:
        """Return when a slice of new input ends that begins now; 0.0 where the input has to wait.

        Within a slice it is the end of that one.
        """
        if self.until:
            return self.until
        if self._queue or self._newcomers or self._costly:
            return 0.0
        now = self.clock()
        if not self._ends:
            self._ends = now + TURN_SECONDS
            self._schedule()
        return min(now + SLICE_SECONDS, self._ends) if now < self._ends else 0.0

    def repeat(self, step: Callable[[bytes], bytes], data: bytes) -> bytes:
        """Call `step`, which returns the bytes that it has left, as long as the slice lasts; return what is left."""
        until = self.open()
        while data and self.clock() < until:
            data = step(data)
        return data

    def wait(self, waiter: QueuedInput, *, costly: bool = False) -> None:
        """Have `waiter` go on in one of the next turns. It waits once at most: that is its own business.

        `costly`: its next step cannot be divided and takes long. One such step runs in a turn.
        """
        # A slice under way is its own, as a rule: it leaves something.
        (self._costly if costly else self._queue if self.until else self._newcomers).append(waiter)
        if not self._ends:
            self._ends = self.clock()  # No new input of this turn comes before it.
            self._schedule()

    def grant(self, waiter: QueuedInput, until: float) -> None:
        """Give `waiter` a slice now."""
        before, self.until = self.until, until
        begun = self.clock()
        try:
            waiter.go_on(until)
        except Exception:
            waiter.abort()
            raise
        finally:
            self.until = before
            seconds = self.clock() - begun
            if seconds > 2 * SLICE_SECONDS and seconds > self._longest[0]:
                self._longest = seconds, waiter.describe()

    def record(self, seconds: float) -> None:
        """Take note of the length of a turn that has just ended, and report a long one."""
        self._observe(seconds)
        self.report_long(seconds)

    def report_long(self, seconds: float) -> None:
        """Report a turn if it was long: by the connection whose slice took most of it, if one did."""
        longest, described = self._longest
        if seconds > LONG_TURN_SECONDS:
            self._report(seconds, *(described if longest > seconds / 2 else UNKNOWN))
        self._longest = 0.0, UNKNOWN

    def _schedule(self) -> None:
        call_soon = self._call_soon or asyncio.get_running_loop().call_soon
        call_soon(self._run)

    def _run(self) -> None:
        """Begin a turn: give slices to those who wait, each one at most, as long as the turn has time for them."""
        clock = self.clock
        self._ends = 0.0
        now = clock()
        if self._began:
            self.record(now - self._began)
        elif self._longest[0]:
            self.report_long(self._longest[0])
        self._began = now
        ends = now + TURN_SECONDS
        try:
            newcomers, others = len(self._newcomers), len(self._queue)
            is_newcomers = True
            while (newcomers or others) and now < ends:
                if newcomers and (is_newcomers or not others):
                    newcomers -= 1
                    waiter = self._newcomers.popleft()
                else:
                    others -= 1
                    waiter = self._queue.popleft()
                is_newcomers = not is_newcomers
                self.grant(waiter, min(now + SLICE_SECONDS, ends))
                now = clock()
            if self._costly:
                self.grant(self._costly.popleft(), now + SLICE_SECONDS)
                now = clock()
        finally:
            if not self.waiting:
                self._began = 0.0  # The loop may sleep before its next turn.
            elif not self._ends:
                self._ends = now
                self._schedule()


class InputSide(Protocol):
    """A connection whose input may have to wait."""

    @property
    def takes_bulk(self) -> bool:
        """Whether its next bytes are only passed on or dropped, at no cost but that of their number."""

    @property
    def piece_bytes_max(self) -> int:
        """Bytes that it may be given at a time, whatever pieces before have cost."""

    def data_received(self, data: bytes) -> None:
        """Process input, or hand it to the backlog."""

    def has_room_for_input(self) -> bool:
        """Return whether it may process more: whoever is to take it does."""

    def hold_input(self) -> None:
        """Pause the transport."""

    def on_backlog_done(self) -> None:
        """Read on, where nothing else speaks against it: all that waited is processed."""

    def abort(self) -> None:
        """Close at once."""

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer, for the log."""


class InputBacklog:
    """The input of one connection that was read and waits for its turns.

    It is cut to pieces, whose length follows from what pieces before have cost. It is made when a connection needs it
    first, and is closed when that is lost, as the two hold each other.
    """

    __slots__ = ("_at", "_data", "_feeds", "_piece_bytes", "_side", "_turns", "is_costly", "is_queued")

    def __init__(self, turns: Turns, side: InputSide) -> None:
        self._turns = turns
        self._side: InputSide | None = side
        self._data, self._at = b"", 0
        """Bytes, and how many of them have been processed."""
        self._piece_bytes = PIECE_BYTES
        self._feeds = False
        """Whether the side is being given a piece."""
        self.is_queued = False
        """Whether it waits for a turn."""
        self.is_costly = False
        """Whether the next step of its side cannot be divided and takes long."""

    def __len__(self) -> int:
        """Return the bytes that wait."""
        return len(self._data) - self._at

    def receive(self, data: bytes) -> bool:
        """Take new input, processed or kept; False where the side is to process it itself, at once."""
        side = self._side
        if self._feeds or side is None or (len(data) <= BULK_BYTES and side.takes_bulk):
            return False
        self._data, self._at = (self.take() + data if len(self) else data), 0
        if not self.is_queued:
            until = self._turns.open()
            if until:
                self._turns.grant(self, until)
            else:
                self.wait()
        return True

    def put_back(self, data: bytes) -> None:
        """Keep bytes that come before all that wait, and wait for a turn: those of a piece that were not processed."""
        self._data, self._at = (data + self.take() if len(self) else data), 0
        self.wait()

    def take(self) -> bytes:
        """Return all that waits, and keep nothing."""
        data, self._data, at, self._at = self._data, b"", self._at, 0
        return data[at:]

    def wait(self) -> None:
        """Wait for a turn, unless it does so already; nothing is read until then."""
        if not self.is_queued and self._side is not None:
            self.is_queued = True
            self._side.hold_input()
            self._turns.wait(self, costly=self.is_costly)

    def blocks_reading(self) -> bool:
        """Return whether something waits that comes before what could be read; it gets a turn, as there is room."""
        if not len(self):
            return False
        if not self._feeds:
            self.wait()
        return True

    def go_on(self, until: float) -> None:
        """Process pieces until then."""
        side, clock = self._side, self._turns.clock
        self.is_queued = False
        if side is None:
            return
        now = clock()
        self._feeds = True
        try:
            while len(self) and side.has_room_for_input():
                begun = now
                side.data_received(self._cut(side))
                now = clock()
                self._adapt(now - begun)
                if now >= until or self.is_queued:
                    break
        finally:
            self._feeds = False
        if self._side is None:
            return  # Another protocol goes on with the connection.
        if not len(self):
            if not self.is_queued:
                side.on_backlog_done()
        elif side.has_room_for_input():
            self.wait()
        else:
            side.hold_input()

    def abort(self) -> None:
        """Close the connection: its input cannot be processed."""
        self.take()
        if self._side is not None:
            self._side.abort()

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return UNKNOWN if self._side is None else self._side.describe()

    def close(self) -> bytes:
        """Forget the connection, which is lost or another protocol's; return its input that waited."""
        self._side = None
        return self.take()

    def _cut(self, side: InputSide) -> bytes:
        """Take the next piece off."""
        data, at = self._data, self._at
        end = len(data) if side.takes_bulk else at + min(self._piece_bytes, side.piece_bytes_max)
        if end >= len(data):
            self._data, self._at = b"", 0
        else:
            self._at = end
        return data[at:end]

    def _adapt(self, seconds: float) -> None:
        """Make pieces shorter or longer, such that one takes a quarter to a half of a slice."""
        if seconds > SLICE_SECONDS / 2:
            self._piece_bytes = max(self._piece_bytes // 2, PIECE_BYTES_MIN)
        elif seconds < SLICE_SECONDS / 4:
            self._piece_bytes = min(self._piece_bytes * 2, PIECE_BYTES_MAX)
