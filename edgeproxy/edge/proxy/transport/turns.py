"""Fair use of the event loop: the input of one connection must not keep the others waiting.

A turn is one iteration of the event loop. libuv reads one socket up to 32 times in a turn, 256 KiB each. Tiny requests,
chunks and frames cost far more CPU than their size suggests. So the worker processes input in slices, unless the input
is a single ordinary request. Each slice has a time limit, and all slices of a turn share another one, however many
connections wait. Unprocessed input waits in a queue. The queue is served round robin, after the new input of a turn:
uvloop runs callbacks first and then reads sockets, so the queue's callback runs after the reads. Connections that have
had no slice yet get every second slice.

A connection whose input waits pauses its transport within `data_received`. This ends libuv's loop of reads.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

SLICE_SECONDS: Final = 0.0005
"""Seconds that one connection may spend on its input in a turn."""

TURN_SECONDS: Final = 0.001
"""Seconds for all slices of one turn together: once for new input, and once more for the queue after it."""

SMALL_BYTES: Final = 1024
"""Reads of at most this many bytes are processed at once, whatever they contain: a slice would cost more than it
saves.
"""

PIECE_BYTES: Final = 16 << 10
"""Bytes of the first piece of a connection's input. Most request heads are shorter."""

PIECE_BYTES_MIN, PIECE_BYTES_MAX = 1 << 10, 64 << 10
"""Minimum and maximum bytes of a piece. A piece of the maximum length takes about 15 ms if it holds one-byte chunks."""

PACKED_PIECE_BYTES_MAX: Final = 512
"""Maximum bytes of a compressed piece whose content the edge reads. Decompressed, it can be a hundred times as long."""

BULK_BYTES: Final = 64 << 10
"""Reads of at most this many plain bytes need no slice. The bytes of a body of known length are plain, for example."""

ACCEPTED_PER_TURN: Final = 8
"""Maximum number of connections that a listener accepts in a turn while input waits, beside the loop's own one. The
loop accepts one in a turn (libuv 1.48), so new clients would wait for one turn per connection before theirs.
"""

FULL_TURN_SECONDS: Final = 0.002
"""After a turn that took longer than this many seconds, the queue gets one slice only. A slice begins requests, but
their answers are read outside of slices. So the worker begins fewer requests until turns are shorter.
"""

CROWDED_SECONDS: Final = 0.1
"""The loop counts as crowded for this many seconds after a turn of more than FULL_TURN_SECONDS."""

LONG_TURN_SECONDS: Final = 0.05
"""Turns that take longer than this many seconds are reported."""

STEPS: Final = 16
"""A loop over requests, frames or chunks reads the clock once for this many of them."""


class QueuedInput(Protocol):
    """A connection whose input waits for a slice."""

    def go_on(self, until: float) -> None:
        """Process input until the clock reaches `until`. Call `Turns.wait` again if input is left."""

    def abort(self) -> None:
        """Close the connection at once, because processing has failed."""

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection and the address of its peer, for the log."""


UNKNOWN: Final = ("other", "")
"""The description in the log if no slice took most of a long turn."""


class Turns:
    """The turns of one worker's event loop. `clock` returns seconds; `call_soon` runs a callback in the next turn."""

    __slots__ = (
        "_began",
        "_call_soon",
        "_crowded_until",
        "_ends",
        "_is_newcomers",
        "_longest",
        "_newcomers",
        "_observe",
        "_queue",
        "_report",
        "accept",
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
        """`observe` records the length of a turn.

        `report` logs a long turn, with the kind and the peer of the connection that had the longest slice.
        """
        self.clock = clock
        self._observe, self._report = observe, report
        self.accept: Callable[[int], None] = lambda _: None
        """Accepts at most this many waiting connections of each listener."""
        self._began = 0.0
        """The start of the current turn if the whole turn is measured, else 0.0."""
        self._longest = (0.0, UNKNOWN)
        """The seconds of the longest slice of the current turn, and the description of its connection."""
        self._call_soon = call_soon
        self._crowded_until = 0.0
        self.until = 0.0
        """The end of the current slice, or 0.0 outside slices."""
        self._ends = 0.0
        """The end of the time for new input in this turn, or 0.0 before the first new input."""
        self._newcomers: deque[QueuedInput] = deque()
        """Connections that have had no slice yet. They need not wait for a whole round of connections that send all the
        time.
        """
        self._is_newcomers = True
        """True if the next slice belongs to a newcomer, if there is one."""
        self._queue: deque[QueuedInput] = deque()
        """Connections whose last slice ended before their input did."""

    @property
    def waiting(self) -> int:
        """The number of connections whose input waits."""
        return len(self._newcomers) + len(self._queue)

    def is_crowded(self) -> bool:
        """Return whether a turn of the last 0.1 seconds took so long that one client's requests delay the others."""
        return self.clock() < self._crowded_until

    def open(self) -> float:
        """Begin a slice for new input. Return the end of the slice, or 0.0 if the input must wait.

        Within a slice, return the end of that slice.
        """
        if self.until:
            return self.until
        if self._queue or self._newcomers:
            return 0.0
        now = self.clock()
        if not self._ends:
            self._ends = now + TURN_SECONDS
            self._schedule()
        # After the time for new input, it waits for its slice like all others.
        return min(now + SLICE_SECONDS, self._ends) if now < self._ends else 0.0

    def repeat(self, step: Callable[[bytes], bytes], data: bytes) -> bytes:
        """Call `step` until the slice ends or all bytes are processed. Return the unprocessed bytes, as `step` does."""
        until = self.open()
        while data and self.clock() < until:
            data = step(data)
        return data

    def wait(self, waiter: QueuedInput) -> None:
        """Queue `waiter` for a slice in one of the next turns. The caller must not queue a waiter twice."""
        # If a slice is running, it is usually the waiter's own, and it ended before the waiter's input did.
        (self._queue if self.until else self._newcomers).append(waiter)
        if not self._ends:
            self._ends = self.clock()  # New input of this turn must not overtake it.
            self._schedule()

    def grant(self, waiter: QueuedInput, until: float) -> None:
        """Give `waiter` a slice that begins now and ends at `until`."""
        # Slices nest if a slice of one connection brings input to another.
        before, self.until = self.until, until
        begun = self.clock()
        try:
            waiter.go_on(until)
        except Exception:
            # The connection is left in an unknown state, and must not be read further.
            waiter.abort()
            raise
        finally:
            self.until = before
            seconds = self.clock() - begun
            # A slice may exceed its end by one step. Only a far longer one is worth a description.
            if seconds > 2 * SLICE_SECONDS and seconds > self._longest[0]:
                self._longest = seconds, waiter.describe()

    def record(self, seconds: float) -> None:
        """Record the length of the turn that has just ended. Report it if it was long."""
        self._observe(seconds)
        if seconds > FULL_TURN_SECONDS:
            self._crowded_until = self.clock() + CROWDED_SECONDS
        self.report_long(seconds)

    def report_long(self, seconds: float) -> None:
        """Report a turn if it was long, with the connection whose slice took more than half of it, if any."""
        longest, described = self._longest
        if seconds > LONG_TURN_SECONDS:
            self._report(seconds, *(described if longest > seconds / 2 else UNKNOWN))
        self._longest = 0.0, UNKNOWN

    def _schedule(self) -> None:
        call_soon = self._call_soon or asyncio.get_running_loop().call_soon
        call_soon(self._run)

    def _run(self) -> None:
        """Begin a turn: give each waiting connection at most one slice, as long as the turn has time."""
        clock = self.clock
        self._ends = 0.0
        now = clock()
        granted = TURN_SECONDS
        if self._began:
            took = now - self._began
            self.record(took)
            # Only here, where input waits: otherwise turns are short, and the loop accepts soon enough.
            self.accept(ACCEPTED_PER_TURN)
            if took > FULL_TURN_SECONDS:
                granted = SLICE_SECONDS
        elif self._longest[0]:
            self.report_long(self._longest[0])
        self._began = now
        ends = now + granted
        try:
            # Counted first: a connection that is queued again in this turn waits for the next one.
            newcomers, others = len(self._newcomers), len(self._queue)
            while (newcomers or others) and now < ends:
                if newcomers and (self._is_newcomers or not others):
                    newcomers -= 1
                    waiter = self._newcomers.popleft()
                else:
                    others -= 1
                    waiter = self._queue.popleft()
                # In turns, so that neither queue can starve the other.
                self._is_newcomers = not self._is_newcomers
                self.grant(waiter, min(now + SLICE_SECONDS, ends))
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
        """True if the next bytes are only passed on or dropped, so that only their number costs time."""

    @property
    def piece_bytes_max(self) -> int:
        """Maximum bytes of a piece for this connection, however little earlier pieces have cost."""

    def data_received(self, data: bytes) -> None:
        """Process input, or hand it to the backlog."""

    def has_room_for_input(self) -> bool:
        """Return whether the connection may process more input, because the receiver of its data has room."""

    def hold_input(self) -> None:
        """Pause the transport."""

    def on_backlog_done(self) -> None:
        """Resume reading unless there is another reason to pause: the backlog is empty."""

    def abort(self) -> None:
        """Close the connection at once."""

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection and the address of its peer, for the log."""


class InputBacklog:
    """The input of one connection that has been read and waits for slices.

    The backlog cuts the input into pieces. The time that earlier pieces took determines the length of the next piece. A
    connection creates its backlog when it first needs one. It closes the backlog when the connection is lost, because
    the two objects refer to each other.
    """

    __slots__ = ("_at", "_data", "_feeds", "_piece_bytes", "_side", "_turns", "is_queued")

    def __init__(self, turns: Turns, side: InputSide, piece_bytes: int = PIECE_BYTES) -> None:
        """`piece_bytes` is the length of the first piece."""
        self._turns = turns
        self._side: InputSide | None = side
        self._data, self._at = b"", 0
        """The bytes, and the number of them that have been processed."""
        self._piece_bytes = piece_bytes
        self._feeds = False
        """True while the connection processes a piece."""
        self.is_queued = False
        """True while the backlog is queued for a slice."""

    def __len__(self) -> int:
        """Return the number of waiting bytes."""
        return len(self._data) - self._at

    def receive(self, data: bytes) -> bool:
        """Process new input in a slice or store it. Return False if the connection must process it itself, at once."""
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
        """Store the unprocessed bytes of a piece in front of all waiting bytes, and queue for a slice."""
        self._data, self._at = (data + self.take() if len(self) else data), 0
        self.wait()

    def take(self) -> bytes:
        """Return all waiting bytes and remove them."""
        data, self._data, at, self._at = self._data, b"", self._at, 0
        return data[at:]

    def wait(self) -> None:
        """Queue for a slice, unless the backlog is queued already. Reading stops until then."""
        if not self.is_queued and self._side is not None:
            self.is_queued = True
            self._side.hold_input()
            self._turns.wait(self)

    def blocks_reading(self) -> bool:
        """Return whether input waits that must be processed before any further read. Queue it, as there is room now."""
        if not len(self):
            return False
        if not self._feeds:
            self.wait()
        return True

    def go_on(self, until: float) -> None:
        """Process pieces until the clock reaches `until`."""
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
            return  # Another protocol has taken over the connection.
        if not len(self):
            if not self.is_queued:
                side.on_backlog_done()
        elif side.has_room_for_input():
            self.wait()
        else:
            side.hold_input()

    def abort(self) -> None:
        """Close the connection, because its input cannot be processed."""
        self.take()
        if self._side is not None:
            self._side.abort()

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection and the address of its peer."""
        return UNKNOWN if self._side is None else self._side.describe()

    def close(self) -> bytes:
        """Detach the connection, which is lost or taken over by another protocol. Return its waiting input."""
        self._side = None
        return self.take()

    def _cut(self, side: InputSide) -> bytes:
        """Remove the next piece from the waiting bytes and return it."""
        data, at = self._data, self._at
        end = len(data) if side.takes_bulk else at + min(self._piece_bytes, side.piece_bytes_max)
        if end >= len(data):
            self._data, self._at = b"", 0
        else:
            self._at = end
        return data[at:end]

    def _adapt(self, seconds: float) -> None:
        """Adjust the length of pieces so that one takes between a quarter and a half of a slice."""
        if seconds > SLICE_SECONDS / 2:
            self._piece_bytes = max(self._piece_bytes // 2, PIECE_BYTES_MIN)
        elif seconds < SLICE_SECONDS / 4:
            self._piece_bytes = min(self._piece_bytes * 2, PIECE_BYTES_MAX)
