"""Precedence: who waits for a page goes first, and jobs of the same process give way to them, within bounds."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RESTS = 9.0
"""The longest rest of jobs, by the time that one worked: with somebody always waiting all have a tenth together."""
WAIT_MAX = 1.0
"""Seconds that a job waits at most, however long jobs worked before."""
LINGER = 0.1
"""Seconds for which a claim holds after its end: who has waited mostly asks for more at once, the rest of a page."""


class _Turn:
    """A job's time of work: `since` is the second of the monotonic clock at which it goes on; before, it is no job."""

    def __init__(self, after: float) -> None:
        self.since = time.monotonic() + after


_TURN: ContextVar[_Turn | None] = ContextVar("the turn of the job of this context", default=None)


@contextmanager
def giving_way(after: float = 0.0) -> Iterator[None]:
    """Have what is done here, and in tasks started here, give way to who waits, from `after` seconds on."""
    token = _TURN.set(_Turn(after))
    try:
        yield
    finally:
        _TURN.reset(token)


def is_giving_way() -> bool:
    """Return whether what is done here gives way."""
    return _TURN.get() is not None


class Precedence:
    """Who is waited for in a process. Lives in one event loop."""

    def __init__(self) -> None:
        self._waiting = 0
        self._free = asyncio.Event()
        self._rests_until = 0.0  # The second of the monotonic clock until which jobs rest while somebody waits.

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Have jobs give way meanwhile, and for LINGER more: somebody waits for what is done here."""
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
        """Return whether `give_way` would wait."""
        return self._waiting > 0 and is_giving_way()

    async def give_way(self) -> None:
        """Wait while somebody waits, if this is a job's, until jobs have rested RESTS times as long as they worked."""
        turn = _TURN.get()
        now = time.monotonic()
        if turn is None or now < turn.since:
            return
        if self._waiting:
            due = max(self._rests_until, now) + RESTS * (now - turn.since)
            self._rests_until = until = min(due, now + WAIT_MAX)
            while self._waiting and (left := until - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await self._free.wait()  # Who has claimed again by now is seen by the loop.
                except TimeoutError:
                    break
        turn.since = time.monotonic()
