"""Reports that take long to compute: computed once for all who ask, cached for a while, answered with their time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.database.precedence import giving_way
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WAIT_SECONDS = 0.1
"""Seconds for which the first request waits for a report that is not there yet."""
REPORTS_MAX = 64
OLD_FACTOR = 5
"""A report is shown until it is so many times as old as it may become, while the next one is computed."""
REST_FACTOR = 10.0
"""A report is cached for so many times as long as it took, so that a slow one is not always being computed."""


class ReportNotReadyError(Exception):
    """The report is being computed: the next request gets it."""


class CachedReport(NamedTuple, Generic[V]):
    """A report, and the Unix second at which its computation began."""

    value: V
    at: float
    seconds: float
    """Seconds for which it is used as it is."""


class ReportCache(Generic[K, V]):
    """The results of `compute` by key.

    A report is used until it is `seconds` old, or REST_FACTOR times as old as it took. From then on a request waits a
    moment for the next one, and gets this one meanwhile; one that is OLD_FACTOR times as old is never shown. A
    computation that fails is logged, and tried again with the next request.
    """

    def __init__(self, name: str, compute: Callable[[K], Awaitable[V]], seconds: float) -> None:
        self._name = name
        self._compute = compute
        self._seconds = seconds
        self._reports: OrderedDict[K, CachedReport[V]] = OrderedDict()
        self._under_way: dict[K, asyncio.Task[None]] = {}
        self._unreadable: dict[K, UnreadableRowError] = {}
        """The errors of reports that cannot be computed, as they need a row that cannot be read."""
        self._tasks = Tasks()
        self._computing = asyncio.Lock()  # One at a time: each has a connection of jobs.

    async def get(self, key: K) -> CachedReport[V]:
        """Return the latest report; raises ReportNotReadyError where there is none yet, and UnreadableRowError."""
        report = self._reports.get(key)
        if (report is None or time.time() - report.at >= report.seconds) and key not in self._under_way:
            task = self._under_way[key] = self._tasks.start(self._name, self._run(key))
            await asyncio.wait([task], timeout=WAIT_SECONDS)
            report = self._reports.get(key)
        if report is None or time.time() - report.at >= OLD_FACTOR * report.seconds:
            raise self._unreadable.get(key) or ReportNotReadyError
        return report

    async def end(self) -> None:
        """Cancel what is being computed."""
        await self._tasks.cancel()

    async def _run(self, key: K) -> None:
        try:
            async with self._computing:
                at, began = time.time(), time.monotonic()
                with giving_way(after=WAIT_SECONDS):  # From then on nobody waits for it.
                    value = await self._compute(key)
            self._unreadable.pop(key, None)
            seconds = max(self._seconds, REST_FACTOR * (time.monotonic() - began))
            self._reports[key] = CachedReport(value, at, seconds)
            self._reports.move_to_end(key)
            while len(self._reports) > REPORTS_MAX:
                self._reports.popitem(last=False)
        except UnreadableRowError as error:
            self._unreadable[key] = error
            log.get_logger().error("a report needs a row that cannot be read", report=self._name, why=str(error))
        finally:
            del self._under_way[key]


async def answer_report(cache: ReportCache[K, JsonObject], key: K) -> web.Response:
    """Answer with a report and its time; raises ProblemError while it is computed for the first time."""
    try:
        report = await cache.get(key)
    except ReportNotReadyError:
        why = "the figures are being worked out: ask again in a moment"
        raise ProblemError(429, why, headers={"Retry-After": "2"}) from None
    return answer(200, {"as_of": format_timestamp(int(report.at * 1000)), **report.value})
