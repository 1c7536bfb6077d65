"""Quantiles of a histogram of latencies. Pure."""

from collections.abc import Sequence

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS


def compute_quantile(buckets: Sequence[int], part: float) -> float | None:
    """Return the milliseconds within which this part of the requests was answered, or None without requests.

    Requests are assumed to be evenly distributed within a bucket, as in Prometheus's `histogram_quantile`. Beyond the
    last bound, the bound is returned.
    """
    total = sum(buckets)
    if not total:
        return None
    rank, below = part * total, 0
    for number, (count, upper) in enumerate(zip(buckets, LATENCY_BUCKETS, strict=False)):
        if count and below + count >= rank:
            lower = LATENCY_BUCKETS[number - 1] if number else 0.0
            return round(1000 * (lower + (upper - lower) * max(0.0, rank - below) / count), 2)
        below += count
    return 1000 * LATENCY_BUCKETS[-1]
