"""Reports that take long to compute. Each is computed once for all callers, and cached with its time."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.database.precedence import giving_way
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError
from edgeproxy.collector.problems import request_codes

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

WAIT_SECONDS = 0.1
"""Seconds that the first request waits for a missing report."""
REPORTS_MAX = 64
OLD_FACTOR = 5
"""While the next report is computed, a report is served up to this multiple of its maximum age."""
REST_FACTOR = 10.0
"""A report is cached for this multiple of its computing time, so that a slow one is not computed continuously."""


class ReportNotReadyError(Exception):
    """The report is being computed. A later request gets it."""


class CachedReport(NamedTuple, Generic[V]):
    """A report, and the Unix second when its computation began."""

    value: V
    at: float
    seconds: float
    """Seconds until it is computed again."""


class ReportCache(Generic[K, V]):
    """The results of `compute` by key.

    A report is served until it is `seconds` old, or REST_FACTOR times its computing time. After that, a request waits
    briefly for the next report and otherwise gets the old one. A report OLD_FACTOR times as old is never served. A
    failed computation is logged, and the next request starts another.
    """

    def __init__(self, name: str, compute: Callable[[K], Awaitable[V]], seconds: float) -> None:
        self._name = name
        self._compute = compute
        self._seconds = seconds
        self._reports: OrderedDict[K, CachedReport[V]] = OrderedDict()
        self._under_way: dict[K, asyncio.Task[None]] = {}
        self._unreadable: dict[K, UnreadableRowError] = {}
        """Errors of reports that need an unreadable row."""
        self._tasks = Tasks()
        self._computing = asyncio.Lock()  # One at a time, because each uses a connection of jobs.

    async def get(self, key: K) -> CachedReport[V]:
        """Return the latest report. Raises ReportNotReadyError if there is none yet, and UnreadableRowError."""
        report = self._reports.get(key)
        if (report is None or time.time() - report.at >= report.seconds) and key not in self._under_way:
            task = self._under_way[key] = self._tasks.start(self._name, self._run(key))
            await asyncio.wait([task], timeout=WAIT_SECONDS)
            report = self._reports.get(key)
        if report is None or time.time() - report.at >= OLD_FACTOR * report.seconds:
            raise self._unreadable.get(key) or ReportNotReadyError
        return report

    async def end(self) -> None:
        """Cancel running computations."""
        await self._tasks.cancel()

    async def _run(self, key: K) -> None:
        try:
            async with self._computing:
                at, began = time.time(), time.monotonic()
                with giving_way(after=WAIT_SECONDS):  # No request waits for it after that time.
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


async def fetch_report(cache: ReportCache[K, JsonObject], key: K) -> JsonObject:
    """Return a report with its time. Raises ProblemError during its first computation."""
    try:
        report = await cache.get(key)
    except ReportNotReadyError:
        why = "the figures are being worked out: ask again in a moment"
        raise ProblemError(request_codes.REPORT_NOT_READY, why, headers={"Retry-After": "2"}) from None
    return {"as_of": format_timestamp(int(report.at * 1000)), **report.value}
