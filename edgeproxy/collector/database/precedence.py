"""Precedence: page requests go first. Jobs of the same process wait for them, within bounds."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RESTS = 9.0
"""The longest pause of a job, as a multiple of its working time: under constant requests it works a tenth of the time.
"""
WAIT_MAX = 1.0
"""Seconds that a job waits at most, even after a long time of work."""
LINGER = 0.1
"""Seconds that a claim stays valid after its end. A browser usually requests the rest of the page at once."""


class _Turn:
    """A job's working time. From the second `since` of the monotonic clock on, it waits for page requests."""

    def __init__(self, after: float) -> None:
        self.since = time.monotonic() + after
        self.worked = 0.0  # Seconds of work since its last pause.
        self.works_since: float | None = None


_TURN: ContextVar[_Turn | None] = ContextVar("the turn of the job of this context", default=None)


@contextmanager
def giving_way(after: float = 0.0) -> Iterator[None]:
    """Make this block and tasks started in it wait for page requests, beginning after `after` seconds."""
    token = _TURN.set(_Turn(after))
    try:
        yield
    finally:
        _TURN.reset(token)


def is_giving_way() -> bool:
    """Return True if the current context waits for page requests."""
    return _TURN.get() is not None


@contextmanager
def counting_work() -> Iterator[None]:
    """Count the time of this block as a job's work. The block holds a connection; waiting for one does not count."""
    turn = _TURN.get()
    if turn is None or turn.works_since is not None:
        yield
        return
    turn.works_since = time.monotonic()
    try:
        yield
    finally:
        turn.worked += time.monotonic() - turn.works_since
        turn.works_since = None


class Precedence:
    """The pending page requests of a process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting = 0
        self._free = asyncio.Event()

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make jobs wait during the block and for LINGER seconds after it, because a page request needs its result."""
        self._waiting += 1
        self._free.clear()
        try:
            yield
        finally:
            asyncio.get_running_loop().call_later(LINGER, self._end_claim)

    def _end_claim(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._free.set()

    def is_due(self) -> bool:
        """Return True if `give_way` may wait."""
        return self._waiting > 0 and is_giving_way()

    async def give_way(self) -> None:
        """Wait while page requests are pending. A job waits at most RESTS times its working time."""
        turn, now = _TURN.get(), time.monotonic()
        if turn is None or now < turn.since:
            return
        worked = turn.worked + (0.0 if turn.works_since is None else now - turn.works_since)
        until = now + min(RESTS * worked, WAIT_MAX)
        while self._waiting and (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._free.wait()  # A new claim may exist by now; the loop checks.
            except TimeoutError:
                break
        turn.worked = 0.0
        if turn.works_since is not None:
            turn.works_since = time.monotonic()
