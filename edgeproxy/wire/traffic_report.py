"""A traffic report: what one edge answered in one minute, by route. Pure; edge and collector share it.

A report is sent beside the batches and is no part of their chain or of money: losing one loses a minute of a chart. An
edge and a minute name it, so that a report which is sent twice counts once. A body is a JSON object of this form:

    {"minute": UNIX, "region": NAME, "total": COUNTS, "routes": [{"route": NAME, …COUNTS}, …],
     "errors": [{"customer": NAME, "route": NAME, "status": 503, "by": "upstream", "requests": 7}, …], "unnamed": 0}

COUNTS are `requests`, `rate_limited` (429), `client_errors` (other 4xx), `server_errors` (5xx), and `buckets`: how many
requests took how long, by LATENCY_BUCKETS, each bucket's own count. `total` has all requests, also those of routes
that are left out. `errors` are answers to customers of 5xx, and those of 4xx that the edge gave by itself, but for 429;
`unnamed` says how many more there were, of groups that are left out. Reports of earlier versions have neither.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import NamedTuple

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.latency_buckets import LATENCY_BUCKETS

PATH = "/v1/traffic"
MINUTE_SECONDS = 60
BUCKETS = len(LATENCY_BUCKETS) + 1
"""Numbers of a histogram: the last one has no upper bound."""
ROUTES_MAX = 100
"""Routes that a report names: those with most requests. The total has the others too."""
ERRORS_MAX = 300
"""Groups of errors that a report names: those with most."""
ANSWERERS = ("edge", "upstream")
"""Who answers with an error: the edge by itself, or an upstream, whose answer it passed on."""
AGE_SECONDS_MAX = 3600
"""Age from which on a report is not sent any more, nor accepted."""
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
    """The number of requests by how long they took: each bucket's own."""

    def plus(self, other: "TrafficCounts") -> "TrafficCounts":
        """Return the sum of both."""
        return self._combine(other, add)

    def minus(self, before: "TrafficCounts") -> "TrafficCounts":
        """Return the growth since `before`; a number that has become less has not grown."""
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
    """Errors of a customer on a route, by status and who answered, one of ANSWERERS."""

    customer: str
    route: str
    status: int
    by: str


class TrafficReport(NamedTuple):
    """The traffic of an edge in the minute that begins at the Unix second `minute`."""

    minute: int
    region: str
    total: TrafficCounts
    routes: Mapping[str, TrafficCounts]
    errors: Mapping[ErrorGroup, int] = {}
    unnamed: int = 0
    """Errors of customers beside those of `errors`."""


def sum_counts(counts: Iterable[TrafficCounts]) -> TrafficCounts:
    """Return the sum of counts."""
    total = TrafficCounts()
    for one in counts:
        total = total.plus(one)
    return total


def build_report(
    minute: int,
    region: str,
    routes: Mapping[str, TrafficCounts],
    errors: Mapping[ErrorGroup, int] = {},
    unnamed: int = 0,
) -> TrafficReport:
    """Build the report of a minute: the total of all routes, the ROUTES_MAX routes with most requests, and the
    ERRORS_MAX groups with most errors. `unnamed`: errors beside `errors`."""
    busy = sorted(((name, one) for name, one in routes.items() if one.requests), key=lambda item: -item[1].requests)
    failing = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    unnamed += sum(requests for _, requests in failing[ERRORS_MAX:])
    total = sum_counts(routes.values())
    return TrafficReport(minute, region, total, dict(busy[:ROUTES_MAX]), dict(failing[:ERRORS_MAX]), unnamed)


def dump_report(report: TrafficReport) -> JsonObject:
    """Return a report as JSON has it."""
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
