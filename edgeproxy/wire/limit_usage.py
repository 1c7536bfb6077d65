"""The current use of the limits of watched customers at one edge. Pure. Edge and collector share it.

The collector knows which customers are watched, and an edge knows the use. Windows of seconds and concurrent requests
are in no batch. So an edge asks every REPORT_SECONDS which customers to report, and reports the ones in the previous
answer:

    {"region": NAME, "usage": [{"customer": NAME, "limits": [{"limit": NAME, "scope": "customer", "route": "", "mode":
     "enforce", "count": 100, "window_s": 10, "used": 12, "peak": 40}, …]}, …]}     answer: {"watched": [NAME, …]}

It is stored for minutes only and not counted. A lost report costs ten seconds of a page.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from edgeproxy.base.json_values import JsonObject

PATH = "/v1/limit-usage"
REPORT_SECONDS = 10
"""Seconds between two reports of an edge."""
WATCHED_MAX = 20
"""Maximum customers of a report."""
LIMITS_MAX = 50
"""Maximum limits of a customer. Those with the largest used fractions are reported."""
COUNT_MAX = 10**15
"""The largest number of a report."""


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """The use of a limit at an edge, by all that it counts there. A limit by key shows the key with the highest use."""

    limit: str
    scope: str
    route: str
    """The route of a limit that counts each route by itself; empty for any other."""
    mode: str
    count: int
    window_s: float
    """Seconds. 0: concurrent requests."""
    used: int
    peak: int
    """The maximum since the customer has been watched."""


class LimitUsageReport(NamedTuple):
    """The use of limits at an edge, by customer."""

    region: str
    usage: Mapping[str, list[LimitUsage]]


def dump_limit_usage(report: LimitUsageReport) -> JsonObject:
    """Return a report as JSON."""
    return {
        "region": report.region,
        "usage": [
            {"customer": customer, "limits": [asdict(limit) for limit in limits]}
            for customer, limits in report.usage.items()
        ],
    }
