"""Answers that take long to work out: worked out once for whoever asks, kept for a while, and told with their time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from edgeproxy.base.tasks import Tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WAIT_SECONDS = 0.1
"""For so long somebody waits who is the first to ask for what is not there yet."""
REPORTS_MAX = 64
RESTS = 10.0
"""An answer is told as it is for so many times as long as it took: what takes minutes is not always worked out."""


class ReportNotReadyError(Exception):
    """It is being worked out: whoever asks again in a moment gets it."""


class CachedReport(NamedTuple, Generic[V]):
    """An answer, and the Unix second at which it was asked for."""

    value: V
    at: float
    seconds: float
    """For so long it is told as it is."""


class ReportCache(Generic[K, V]):
    """What `make` says of each key. It is told as it was until it is `seconds` old, or RESTS times as old as it took to
    work it out, and from then on while that is done anew. Who asks first for what is not there yet waits for
    WAIT_SECONDS. What fails is tried again by who asks next; its failure is logged.
    """

    def __init__(self, name: str, make: Callable[[K], Awaitable[V]], seconds: float) -> None:
        self._name = name
        self._make = make
        self._seconds = seconds
        self._reports: OrderedDict[K, CachedReport[V]] = OrderedDict()
        self._making: dict[K, asyncio.Task[None]] = {}
        self._tasks = Tasks()

    async def get(self, key: K) -> CachedReport[V]:
        """Return what is known; raises ReportNotReadyError where that is nothing yet."""
        report = self._reports.get(key)
        if (report is None or time.time() - report.at >= report.seconds) and key not in self._making:
            making = self._making[key] = self._tasks.start(self._name, self._work(key))
            if report is None:
                await asyncio.wait([making], timeout=WAIT_SECONDS)
                report = self._reports.get(key)
        if report is None:
            raise ReportNotReadyError
        return report

    async def end(self) -> None:
        """Work out nothing more."""
        await self._tasks.cancel()

    async def _work(self, key: K) -> None:
        at, began = time.time(), time.monotonic()
        try:
            value = await self._make(key)
            self._reports[key] = CachedReport(value, at, max(self._seconds, RESTS * (time.monotonic() - began)))
            self._reports.move_to_end(key)
            while len(self._reports) > REPORTS_MAX:
                self._reports.popitem(last=False)
        finally:
            del self._making[key]
