"""Traffic by route, read from the metrics of the workers: answers, and their duration. Pure."""

from collections.abc import Iterable, Mapping

from edgeproxy.edge.metrics import Series
from edgeproxy.wire.traffic_report import BUCKETS, TrafficCounts

REQUESTS, SECONDS = "edge_requests_total", "edge_request_seconds"
"""The metrics that are read: requests by route, tier and status, and the histogram of a route."""


def read_traffic(metrics: Iterable[Series]) -> dict[str, TrafficCounts]:
    """Return the answers of each route since the state directory was created."""
    routes: dict[str, TrafficCounts] = {}
    for name, labels, words in metrics:
        if name == REQUESTS:
            counts = _count_status(labels[2], words[0])
        elif name == SECONDS:
            counts = TrafficCounts(buckets=tuple(words[:BUCKETS]))
        else:
            continue
        routes[labels[0]] = routes.get(labels[0], TrafficCounts()).plus(counts)
    return routes


def compute_growth(before: Mapping[str, TrafficCounts], now: Mapping[str, TrafficCounts]) -> dict[str, TrafficCounts]:
    """Return the answers by route between two readings."""
    return {route: counts.minus(before.get(route, TrafficCounts())) for route, counts in now.items()}


def _count_status(status: str, requests: int) -> TrafficCounts:
    """Return the counts of requests that were answered with this status, or with one of this class."""
    return TrafficCounts(
        requests,
        rate_limited=requests if status == "429" else 0,
        client_errors=requests if status[0] == "4" and status != "429" else 0,
        server_errors=requests if status[0] == "5" else 0,
    )
