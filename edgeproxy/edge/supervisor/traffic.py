"""The reporter of traffic: once a minute it reports to the collector the edge's answers and their latency.

It reads the metrics that workers count anyway, so requests pay nothing. The holder of the identity lock at the end of a
minute reports it, if it read the metrics at both ends. So the minute when a supervisor begins is a gap, and no minute
is reported in part. Reports that wait for the collector are only in memory.

Errors of customers are in no metric, because there may be a million customers: workers send them twice a second. Errors
of another residency's customers are reported to its collector, which gets no other traffic.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus

from edgeproxy.base import log
from edgeproxy.edge.counters.usage_key import split_customer
from edgeproxy.edge.messages import ErrorsCounted
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.edge.usage.traffic import compute_growth
from edgeproxy.wire.traffic_report import (
    AGE_SECONDS_MAX,
    MINUTE_SECONDS,
    ErrorGroup,
    TrafficCounts,
    TrafficReport,
    build_report,
)

SendReport = Callable[[TrafficReport, str], Awaitable[Reply | None]]
"""Sends a report to the collector of a residency, empty for the edge's own. Returns None if this supervisor ships
nothing there. Raises OSError if the collector does not answer.
"""
UNKNOWN = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
"""Statuses of a collector that takes no reports, because it is of an earlier version."""
LATER = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
"""With these statuses a report is sent once more: the edge has shipped no batch yet, or the collector is busy."""
GROUPS_MAX = 20_000
"""Groups of errors of one minute that are counted separately."""


class TrafficReporter:
    """The reporter of one supervisor."""

    def __init__(
        self,
        table_reader: TableReader,
        region: str,
        send: SendReport,
        clock: Callable[[], float] = time.time,
        residencies: Callable[[], Collection[str]] = lambda: ("",),
    ) -> None:
        """`residencies` returns the residencies whose collectors get reports; the empty name is the edge's own."""
        self._residencies = residencies
        self._table_reader = table_reader
        self._region = region
        self._send = send
        self._clock = clock
        self._before: tuple[int, dict[str, TrafficCounts]] | None = None
        """The minute at whose beginning the metrics were last read, and their values."""
        self._errors: dict[ErrorGroup, int] = {}
        """The errors since the last turn."""
        self._unnamed = 0
        self._waiting: dict[str, deque[TrafficReport]] = {}
        """The waiting reports, by residency."""
        self._log = log.RateLimitedLog(600.0)

    def record_errors(self, message: ErrorsCounted) -> None:
        """Record a worker's counts, which belong to the current minute."""
        self._unnamed += message.unnamed
        for *names, requests in message.errors:
            group = ErrorGroup._make(names)
            if group in self._errors or len(self._errors) < GROUPS_MAX:
                self._errors[group] = self._errors.get(group, 0) + requests
            else:
                self._unnamed += requests

    async def run(self) -> None:
        """Report each minute, for ever."""
        while True:
            # A little late rather than early: an early turn would belong to the minute before.
            await asyncio.sleep(MINUTE_SECONDS - self._clock() % MINUTE_SECONDS + 0.001)
            await self.turn()

    async def turn(self) -> None:
        """Report the minute that has just ended, and waiting reports. A failure costs one minute of a chart."""
        minute = int(self._clock()) // MINUTE_SECONDS * MINUTE_SECONDS
        errors, unnamed, self._errors, self._unnamed = self._errors, self._unnamed, {}, 0
        try:
            now = await self._table_reader.traffic()
            before, self._before = self._before, (minute, now)
            # After a stop of the process, or a jump of the clock, the growth is of another time than a minute.
            if before is not None and before[0] == minute - MINUTE_SECONDS:
                growth = compute_growth(before[1], now)
                self._build_reports(before[0], growth, errors, unnamed)
        except OSError as error:
            self._log.info("traffic is not known", "", why=str(error) or type(error).__name__)
        await asyncio.gather(*(self._ship(residency, waiting) for residency, waiting in self._waiting.items()))

    def _build_reports(
        self, minute: int, growth: dict[str, TrafficCounts], errors: dict[ErrorGroup, int], unnamed: int
    ) -> None:
        """Build the reports of a minute: all traffic for the edge's own residency, only errors for the others."""
        by_residency: dict[str, dict[ErrorGroup, int]] = {residency: {} for residency in self._residencies()}
        for group, requests in errors.items():
            residency, customer = split_customer(group.customer)
            if residency in by_residency:
                by_residency[residency][group._replace(customer=customer)] = requests
        for residency, own in by_residency.items():
            # The metrics do not tell residencies apart.
            counts = ({}, own, 0) if residency else (growth, own, unnamed)
            waiting = self._waiting.setdefault(residency, deque(maxlen=AGE_SECONDS_MAX // MINUTE_SECONDS))
            waiting.append(build_report(minute, self._region, *counts))

    async def _ship(self, residency: str, waiting: deque[TrafficReport]) -> None:
        """Send the waiting reports, the oldest first, until one fails."""
        while waiting:
            report = waiting[0]
            # The collector takes reports up to twice this age, so none is refused for the time on its way.
            if report.minute < self._clock() - AGE_SECONDS_MAX:
                waiting.popleft()
                continue
            try:
                reply = await self._send(report, residency)
            except OSError as error:
                self._log.info("traffic is reported later", "", why=str(error) or type(error).__name__)
                return
            if reply is None or reply.status in UNKNOWN:
                waiting.clear()
                return
            if reply.status in LATER or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return
            if reply.status != HTTPStatus.OK:
                why = reply.body[:200].decode("utf-8", "replace")
                self._log.error("the collector refuses a report of traffic", "", status=reply.status, why=why)
            waiting.popleft()
