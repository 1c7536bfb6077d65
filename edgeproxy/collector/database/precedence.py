"""Precedence: who waits for a page goes first, and jobs of the same process give way to them, within bounds."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RESTS = 9.0
"""The longest wait of a job, by the time that it worked before: with somebody always waiting it has a tenth."""
WAIT_MAX = 1.0
"""Seconds that a job waits at most, however long it worked before."""


class _Turn:
    """A job's time of work: `since` is the second of the monotonic clock at which it went on."""

    def __init__(self) -> None:
        self.since = time.monotonic()


_TURN: ContextVar[_Turn | None] = ContextVar("the turn of the job of this context", default=None)


@contextmanager
def giving_way() -> Iterator[None]:
    """Have what is done here, and in tasks started here, give way to who waits."""
    token = _TURN.set(_Turn())
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

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Have jobs give way meanwhile: somebody waits for what is done here."""
        self._waiting += 1
        self._free.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._free.set()

    def is_due(self) -> bool:
        """Return whether `give_way` would wait."""
        return self._waiting > 0 and is_giving_way()

    async def give_way(self) -> None:
        """Wait while somebody waits, if this is a job's, but no longer than RESTS times as long as it worked."""
        turn = _TURN.get()
        if turn is None:
            return
        now = time.monotonic()
        until = now + min(RESTS * (now - turn.since), WAIT_MAX)
        while self._waiting and (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._free.wait()  # Who has claimed again by now is seen by the loop.
            except TimeoutError:
                break
        turn.since = time.monotonic()
