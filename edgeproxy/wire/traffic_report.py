"""Traffic reports: the answers of one edge in one minute, by route. Pure. Edge and collector share it.

A report is sent beside the batches. It belongs neither to their chain nor to money, so a lost report only costs a
minute of a chart. Edge and minute identify it, so a repeated report counts once. A body is a JSON object of this form:

    {"minute": UNIX, "region": NAME, "total": COUNTS, "routes": [{"route": NAME, …COUNTS}, …],
     "errors": [{"customer": NAME, "route": NAME, "status": 503, "by": "upstream", "requests": 7}, …], "unnamed": 0}

COUNTS are `requests`, `rate_limited` (429), `client_errors` (other 4xx), `server_errors` (5xx), and `buckets`: the
number of requests by duration, in LATENCY_BUCKETS, each bucket's own count. `total` has all requests, including those
of routes that are left out. `errors` are answers to customers with 5xx, and those with 4xx except 429 from the edge
itself. `unnamed` is the number of further errors, in groups that are left out. Reports of earlier versions have
neither.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import NamedTuple

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.latency_buckets import LATENCY_BUCKETS

PATH = "/v1/traffic"
MINUTE_SECONDS = 60
BUCKETS = len(LATENCY_BUCKETS) + 1
"""Numbers of a histogram. The last one has no upper bound."""
ROUTES_MAX = 100
"""Maximum routes in a report: those with most requests. The total includes the others."""
ERRORS_MAX = 300
"""Maximum groups of errors in a report: those with most requests."""
ANSWERERS = ("edge", "upstream")
"""The origins of errors: the edge itself, or an upstream whose answer it forwarded."""
AGE_SECONDS_MAX = 3600
"""Maximum age of a report that is sent or accepted."""
COUNT_MAX = 10**12
"""The largest number of a report."""


class TrafficCounts(NamedTuple):
    """The requests of a time."""

    requests: int = 0
    rate_limited: int = 0
    """Requests answered with 429."""
    client_errors: int = 0
    """Requests answered with 4xx, other than 429."""
    server_errors: int = 0
    """Requests answered with 5xx."""
    buckets: tuple[int, ...] = (0,) * BUCKETS
    """The number of requests by duration, each bucket's own count."""

    def plus(self, other: "TrafficCounts") -> "TrafficCounts":
        """Return the sum of both."""
        return self._combine(other, add)

    def minus(self, before: "TrafficCounts") -> "TrafficCounts":
        """Return the increase since `before`. A number that has decreased counts as no increase."""
        return self._combine(before, lambda now, then: max(0, now - then))

    def _combine(self, other: "TrafficCounts", combine: Callable[[int, int], int]) -> "TrafficCounts":
        return TrafficCounts(
            combine(self.requests, other.requests),
            combine(self.rate_limited, other.rate_limited),
            combine(self.client_errors, other.client_errors),
            combine(self.server_errors, other.server_errors),
            tuple(map(combine, self.buckets, other.buckets)),
        )


class ErrorGroup(NamedTuple):
    """Errors of a customer on a route, by status and origin, which is one of ANSWERERS."""

    customer: str
    route: str
    status: int
    by: str


class TrafficReport(NamedTuple):
    """The traffic of an edge in the minute that begins at Unix second `minute`."""

    minute: int
    region: str
    total: TrafficCounts
    routes: Mapping[str, TrafficCounts]
    errors: Mapping[ErrorGroup, int] = {}
    unnamed: int = 0
    """Errors of customers that are not in `errors`."""


def sum_counts(counts: Iterable[TrafficCounts]) -> TrafficCounts:
    """Return the sum of counts."""
    total = TrafficCounts()
    for count in counts:
        total = total.plus(count)
    return total


def build_report(
    minute: int,
    region: str,
    routes: Mapping[str, TrafficCounts],
    errors: Mapping[ErrorGroup, int] = {},
    unnamed: int = 0,
) -> TrafficReport:
    """Build the report of a minute.

    It has the total of all routes, the ROUTES_MAX routes with most requests, and the ERRORS_MAX groups with most
    errors. `unnamed`: the number of errors that are not in `errors`.
    """
    busy = sorted(
        ((name, route) for name, route in routes.items() if route.requests), key=lambda item: -item[1].requests
    )
    failing = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    unnamed += sum(requests for _, requests in failing[ERRORS_MAX:])
    total = sum_counts(routes.values())
    return TrafficReport(minute, region, total, dict(busy[:ROUTES_MAX]), dict(failing[:ERRORS_MAX]), unnamed)


def dump_report(report: TrafficReport) -> JsonObject:
    """Return a report as JSON."""
    routes = [{"route": route, **_dump_counts(counts)} for route, counts in report.routes.items()]
    return {
        "minute": report.minute,
        "region": report.region,
        "total": _dump_counts(report.total),
        "routes": [*routes],
        "errors": [{**group._asdict(), "requests": requests} for group, requests in report.errors.items()],
        "unnamed": report.unnamed,
    }


def _dump_counts(counts: TrafficCounts) -> JsonObject:
    return {**counts._asdict(), "buckets": list(counts.buckets)}
