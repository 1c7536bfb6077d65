"""The exporter of one process. Finished spans wait in a bounded queue until a receiver accepts them.

Producers of spans never wait for the receiver. If it is down, slow or refuses, spans are dropped and counted.
"""

import asyncio
import os
import random
import socket
from collections import Counter, deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

import edgeproxy
from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks

if TYPE_CHECKING:
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.tracing.transport import Outcome, Transport

QUEUE_BYTES_MAX: Final = 4 << 20
"""The most bytes of waiting spans, some ten thousand spans; further spans are dropped."""
BATCH_BYTES_MAX: Final = 256 << 10
"""The most bytes of spans in one request. Receivers refuse requests of megabytes by default."""
BATCH_SECONDS: Final = 0.5
"""Seconds that spans wait for further spans."""
RETRY_SECONDS: Final = 60.0
"""Seconds of retries of a request. After them its spans are dropped."""
BACKOFF_SECONDS_FIRST, BACKOFF_SECONDS_MAX = 0.5, 15.0
FLUSH_SECONDS: Final = 3.0
"""Seconds for the export of the last spans at the end."""
LOG_SECONDS: Final = 60.0

QUEUE_FULL, REFUSED, UNANSWERED, ENDED = "queue_full", "refused", "unanswered", "ended"
DROP_REASONS: Final = (QUEUE_FULL, REFUSED, UNANSWERED, ENDED)
"""Why an exporter drops spans."""


class Batch(NamedTuple):
    """Encoded spans, and their number."""

    data: bytes
    spans: int


class SpanExporter:
    """Exports spans to the receiver of `settings`, if any. Lives in one event loop."""

    def __init__(self, settings: "Tracing | None", attributes: dict[str, str]) -> None:
        """`attributes` describe the resource, in addition to the common attributes of all processes."""
        self._settings = settings
        self._attributes = attributes
        self.exported = 0
        """Spans that a receiver has accepted."""
        self.dropped: Counter[str] = Counter()
        """Spans that were dropped, by reason."""
        self._queue: deque[Batch] = deque()
        self._queued_bytes = 0
        self._wake, self._ending = asyncio.Event(), asyncio.Event()
        self._tasks = Tasks()
        self._running: asyncio.Task[None] | None = None
        self._log = log.RateLimitedLog(LOG_SECONDS)

    def begin(self) -> None:
        """Export from now on, if there is a receiver."""
        if self._settings is not None:
            self._running = self._tasks.start("export spans", self._run(self._settings))

    async def follow(self, settings: "Tracing | None") -> None:
        """Apply the settings of another configuration. Waiting spans go to its receiver, if it has one."""
        if settings != self._settings:
            await self._tasks.cancel()
            self._settings = settings
            if settings is None:
                self._drop_queue()
            self.begin()

    def add(self, spans: bytes, count: int) -> None:
        """Queue encoded spans."""
        if self._settings is None or self._queued_bytes + len(spans) > QUEUE_BYTES_MAX:
            self.dropped[QUEUE_FULL if self._settings else ENDED] += count
            return
        self._queue.append(Batch(spans, count))
        self._queued_bytes += len(spans)
        self._wake.set()

    async def end(self) -> None:
        """Export waiting spans, within a few seconds."""
        self._ending.set()
        self._wake.set()
        if self._running is not None:
            await asyncio.wait([self._running], timeout=FLUSH_SECONDS)
        await self._tasks.cancel()
        self._drop_queue()

    def _drop_queue(self) -> None:
        self.dropped[ENDED] += sum(batch.spans for batch in self._queue)
        self._queue.clear()
        self._queued_bytes = 0

    async def _run(self, settings: "Tracing") -> None:
        resource = {
            "service.name": settings.service_name,
            "service.version": edgeproxy.__version__,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            **self._attributes,
            **settings.resource_attributes,
        }
        transport = create_transport(settings)
        try:
            while self._queue or not self._ending.is_set():
                await self._wake.wait()
                await self._pause(BATCH_SECONDS)
                self._wake.clear()
                while self._queue:
                    await self._export(transport, resource)
        finally:
            await transport.close()

    async def _export(self, transport: "Transport", resource: dict[str, str]) -> None:
        """Export the first spans of the queue. They stay in it until their outcome is known."""
        from edgeproxy.tracing.spans import create_request

        batches: list[Batch] = []
        size = 0
        for batch in self._queue:
            size += len(batch.data)
            if batches and size > BATCH_BYTES_MAX:
                break
            batches.append(batch)
        request = create_request(resource, b"".join([batch.data for batch in batches]))
        until, backoff = monotonic() + RETRY_SECONDS, BACKOFF_SECONDS_FIRST
        while not (outcome := await transport.send(request)).is_accepted:
            pause = max(backoff * random.uniform(0.8, 1.2), outcome.retry_after)
            self._log.error("spans not exported", transport.endpoint, why=outcome.why)
            if not outcome.may_retry or monotonic() + pause > until or self._ending.is_set():
                break
            backoff = min(2 * backoff, BACKOFF_SECONDS_MAX)
            await self._pause(pause)
        self._settle(batches, outcome)

    async def _pause(self, seconds: float) -> None:
        """Wait until the time is over or the process ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    def _settle(self, batches: list[Batch], outcome: "Outcome") -> None:
        """Remove the first spans from the queue and count their outcome."""
        spans = 0
        for _ in batches:
            batch = self._queue.popleft()
            self._queued_bytes -= len(batch.data)
            spans += batch.spans
        rejected = min(spans, outcome.rejected) if outcome.is_accepted else spans
        self.exported += spans - rejected
        self.dropped[UNANSWERED if outcome.may_retry else REFUSED] += rejected


def create_transport(settings: "Tracing") -> "Transport":
    """Create the transport of a protocol.

    Each protocol needs the packages of an extra. All else must work without them.
    """
    if settings.protocol == "grpc":
        from edgeproxy.tracing.grpc_transport import GrpcTransport

        return GrpcTransport(settings)
    from edgeproxy.tracing.transport import HttpTransport

    return HttpTransport(settings)
