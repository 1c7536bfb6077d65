"""Events as they arrive: those that come while a transaction is under way share the next one.

So in a storm the disk is waited for once for many, and still nobody is answered before an event is on it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edgeproxy.collector.billing.webhooks.receiver import Received
from edgeproxy.collector.database.database import LOST

TOGETHER_MAX = 100
"""Events of a transaction."""

Write = Callable[[Sequence[Received]], Awaitable[object]]
"""Keeps events in a transaction of their own; to do so twice does no harm."""


class _Batch:
    """Events of one transaction."""

    def __init__(self) -> None:
        self.events: list[Received] = []
        self.is_kept = False


class Arrivals:
    """Gathers events for `write`."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._next = _Batch()
        self._turn = asyncio.Lock()

    async def keep(self, event: Received) -> None:
        """Return once the event is kept; raises what `write` raises of it, so that it is sent again."""
        batch = self._next
        batch.events.append(event)
        if len(batch.events) >= TOGETHER_MAX:
            self._next = _Batch()
        async with self._turn:
            if batch.is_kept:
                return
            if batch is self._next:
                self._next = _Batch()
            try:
                await self._write(batch.events)
                batch.is_kept = True
            except LOST:
                raise
            except Exception:  # Of one of them: it must not be in the way of the others.
                await self._write([event])
