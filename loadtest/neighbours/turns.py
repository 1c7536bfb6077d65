"""The longest turn of the edge's event loops, from its histogram `edge_loop_turn_seconds`."""

from collections import defaultdict
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

from loadtest.testbed.http_client import ask

_BUCKETS = "edge_loop_turn_seconds_bucket"


def buckets(text: str) -> dict[float, float]:
    """The cumulative counts of all workers and kinds, by the bucket's bound in seconds, of a page of metrics."""
    counts: defaultdict[float, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == _BUCKETS:
                counts[float(sample.labels["le"])] += sample.value
    return dict(counts)


def longest(before: dict[float, float], after: dict[float, float]) -> float | None:
    """The bound in milliseconds of the highest bucket that has grown; None if none has."""
    bound, seen = None, 0.0
    for limit in sorted(after):
        grown = after[limit] - before.get(limit, 0.0)
        if grown > seen:
            bound, seen = limit, grown
    return None if bound is None else bound * 1000


def fetch(port: int) -> dict[float, float]:
    """Return `buckets` of an edge's admin listener, empty if it does not answer."""
    try:
        return buckets(ask(port, "/metrics").body.decode())
    except (OSError, HTTPException):
        return {}
