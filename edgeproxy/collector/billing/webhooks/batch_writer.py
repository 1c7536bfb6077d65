"""The batch writer of webhook events: events that come during a transaction share the next one.

In a storm the disk is waited for once for many events. Still no event is acknowledged before it is on disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edgeproxy.collector.billing.webhooks.receiver import ReceivedEvent
from edgeproxy.collector.database.database import CONNECTION_ERRORS

TOGETHER_MAX = 100
"""Events of a transaction."""

Write = Callable[[Sequence[ReceivedEvent]], Awaitable[object]]
"""Stores events in a transaction of their own; storing them twice does no harm."""


class _Batch:
    """Events of one transaction."""

    def __init__(self) -> None:
        self.events: list[ReceivedEvent] = []
        self.is_written = False


class WebhookBatchWriter:
    """Gathers events for `write`."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._next = _Batch()
        self._turn = asyncio.Lock()

    async def write_event(self, event: ReceivedEvent) -> None:
        """Return once the event is stored; raises what `write` raises of it, so that Stripe sends it again."""
        batch = self._next
        batch.events.append(event)
        if len(batch.events) >= TOGETHER_MAX:
            self._next = _Batch()
        async with self._turn:
            if batch.is_written:
                return
            if batch is self._next:
                self._next = _Batch()
            try:
                await self._write(batch.events)
                batch.is_written = True
            except CONNECTION_ERRORS:
                raise
            except Exception:  # Of one of them: it must not be in the way of the others.
                await self._write([event])
