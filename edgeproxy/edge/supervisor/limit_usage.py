"""The reporter of limits in use: the present use of limits at this edge, by customers that are being watched.

The collector names these customers, so nothing is read or sent for others: an edge without any sends one small request
every ten seconds. The use is read as for `GET /limits/CUSTOMER` of the admin listener, outside the request path.
Concurrency changes faster than the reports, so it is read every two seconds for its peak.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from http import HTTPStatus

import orjson

from edgeproxy.base import log
from edgeproxy.edge.supervisor.limit_report import Policy
from edgeproxy.edge.supervisor.traffic import UNKNOWN
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.wire.limit_usage import LIMITS_MAX, REPORT_SECONDS, WATCHED_MAX, LimitUsage, LimitUsageReport

READ_SECONDS = 2.0
"""Seconds between two readings of the use."""
UNKNOWN_SECONDS = 600.0
"""A collector of an earlier version does not know these reports, and is not asked again for this many seconds."""

ReadPolicies = Callable[[str, str], Awaitable[list[Policy]]]
"""Returns the policies of a customer by residency and name. Raises OSError, LookupError or ValueError."""
SendReport = Callable[[LimitUsageReport, str], Awaitable[Reply | None]]
"""As `SendReport` of traffic.py."""
Peaks = dict[tuple[str, str, str], int]
"""The highest observed use of limits, by name, scope and route."""


class LimitUsageReporter:
    """The reporter of one supervisor."""

    def __init__(
        self,
        read: ReadPolicies,
        region: str,
        send: SendReport,
        residencies: Callable[[], Collection[str]] = lambda: ("",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`residencies` returns the residencies whose collectors get reports; the empty name is the edge's own."""
        self._read = read
        self._region = region
        self._send = send
        self._residencies = residencies
        self._clock = clock
        self._watched: dict[str, dict[str, Peaks]] = {}
        """The peaks of watched customers, by residency and name."""
        self._usage: dict[str, dict[str, list[LimitUsage]]] = {}
        """Their use at the last reading, by residency and name."""
        self._resume_at: dict[str, float] = {}
        """When an older collector is asked again, by residency."""
        self._log = log.RateLimitedLog(600.0)

    async def run(self) -> None:
        """Read and report, for ever."""
        while True:
            for _ in range(round(REPORT_SECONDS / READ_SECONDS)):
                await asyncio.sleep(READ_SECONDS)
                await self.read()
            await self.report()

    async def read(self) -> None:
        """Read the present use of the watched customers."""
        self._usage = {residency: {} for residency in self._watched}
        for residency, customers in self._watched.items():
            for customer, peaks in customers.items():
                try:
                    policies = await self._read(residency, customer)
                except (OSError, LookupError, ValueError) as error:
                    why = str(error) or type(error).__name__
                    self._log.info("what is used of limits cannot be read", customer, why=why)
                    continue
                self._usage[residency][customer] = to_usage(policies, peaks)

    async def report(self) -> None:
        """Report the last reading to each collector, and learn from it the watched customers.

        A failure costs one report.
        """
        residencies = [
            residency for residency in self._residencies() if self._clock() >= self._resume_at.get(residency, 0.0)
        ]
        self._watched = {residency: self._watched.get(residency, {}) for residency in residencies}
        await asyncio.gather(*map(self._report_to, residencies))

    async def _report_to(self, residency: str) -> None:
        watched: Collection[str] = ()
        try:
            reply = await self._send(LimitUsageReport(self._region, self._usage.get(residency, {})), residency)
            if reply is not None and reply.status == HTTPStatus.OK:
                watched = parse_watched(reply.body)
            elif reply is not None and reply.status in UNKNOWN:
                self._resume_at[residency] = self._clock() + UNKNOWN_SECONDS
        except OSError as error:
            self._log.info("limits in use are reported later", "", why=str(error) or type(error).__name__)
            return
        before = self._watched.get(residency, {})
        self._watched[residency] = {customer: before.get(customer, {}) for customer in watched}


def to_usage(policies: Iterable[Policy], peaks: Peaks) -> list[LimitUsage]:
    """Return the use of these policies, those with the largest used part first, and raise their `peaks`.

    Quotas are left out, because the ledger knows them. Limits with a separate use per address or end user are left out
    too.
    """
    usage: dict[tuple[str, str, str], LimitUsage] = {}
    for policy in policies:
        used, count, window = policy["used"], policy["limit"], policy["window_s"]
        if not isinstance(used, int) or policy["algorithm"] == "quota":
            continue
        key = (str(policy["name"]), str(policy["scope"]), str(policy.get("route", "")))
        if key in usage and usage[key].used >= used:
            continue  # Another key has used more of it.
        peaks[key] = max(used, peaks.get(key, 0))
        assert isinstance(count, int)
        assert isinstance(window, (int, float))
        usage[key] = LimitUsage(*key, str(policy["mode"]), count, window, used, peaks[key])
    return sorted(
        usage.values(), key=lambda limit: (-limit.used / max(limit.count, 1), limit.limit, limit.scope, limit.route)
    )[:LIMITS_MAX]


def parse_watched(body: bytes) -> list[str]:
    """Return the customers that an answer names; none if it cannot be read."""
    try:
        watched = orjson.loads(body).get("watched", [])
    except (orjson.JSONDecodeError, AttributeError):
        return []
    return [name for name in watched if isinstance(name, str)][:WATCHED_MAX] if isinstance(watched, list) else []
