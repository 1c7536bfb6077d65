"""What is used of the limits of watched customers at one edge now. Pure; edge and collector share it.

The collector knows who is looked at, an edge what is used; windows of seconds and requests at once are in no batch. So
an edge asks every REPORT_SECONDS whom to report, and reports those whom the answer before named:

    {"region": NAME, "usage": [{"customer": NAME, "limits": [{"limit": NAME, "scope": "customer", "route": "", "mode":
     "enforce", "count": 100, "window_s": 10, "used": 12, "peak": 40}, …]}, …]}     answer: {"watched": [NAME, …]}

Nothing of it is stored for longer than minutes or counted, and losing a report costs ten seconds of a page.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from edgeproxy.base.json_values import JsonObject

PATH = "/v1/limit-usage"
REPORT_SECONDS = 10
"""Seconds between two reports of an edge."""
WATCHED_MAX = 20
"""Customers of a report."""
LIMITS_MAX = 50
"""Limits of a customer: those of which the largest part is used."""
COUNT_MAX = 10**15
"""The largest number of a report."""


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """What is used of a limit at an edge, by all that it counts there; of a limit by key, by the key that used most."""

    limit: str
    scope: str
    route: str
    """The route of a limit that counts each route by itself; empty for any other."""
    mode: str
    count: int
    window_s: float
    """Seconds; 0 for requests at once."""
    used: int
    peak: int
    """The most that was seen since the customer is watched."""


class LimitUsageReport(NamedTuple):
    """What is used of limits at an edge, by customer."""

    region: str
    usage: Mapping[str, list[LimitUsage]]


def dump_limit_usage(report: LimitUsageReport) -> JsonObject:
    """Return a report as JSON has it."""
    return {
        "region": report.region,
        "usage": [
            {"customer": customer, "limits": [asdict(one) for one in limits]}
            for customer, limits in report.usage.items()
        ],
    }
