"""What this worker counts, under the names that metrics and invoices know."""

from edgeproxy.counters.meters import Counter, Histogram, Metrics, UsageMeters
from edgeproxy.counters.store import Store
from edgeproxy.proxy.lane import code_label


class Counts:
    """The counters of one worker, over its store's. Metric names and labels are those of edgeproxy.metrics."""

    def __init__(self, store: Store) -> None:
        self._metrics: Metrics = store.meters
        self._billing: UsageMeters = store.billing
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._limited: dict[tuple[str, str, tuple[str, ...]], tuple[Counter, ...]] = {}

    def usage(self, customer: str, meter: str, route: str) -> Counter:
        """What is billed."""
        return self._billing.counter(customer, meter, route)

    def requests(self, route: str, tier: str, status: int) -> Counter:
        """Requests answered with this status."""
        key = (route, tier, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests[key] = self._metrics.counter("edge_requests_total", *key[:2], code_label(status))
        return counter

    def request_seconds(self, route: str) -> Histogram:
        """Whole requests on a route."""
        return self._metrics.histogram("edge_request_seconds", route)

    def overhead_seconds(self) -> Histogram:
        """The edge's own part of requests."""
        return self._metrics.histogram("edge_overhead_seconds")

    def upstream_seconds(self, upstream: str) -> Histogram:
        """What a service takes to answer."""
        return self._metrics.histogram("edge_upstream_seconds", upstream)

    def limited(self, route: str, tier: str, policies: tuple[str, ...]) -> tuple[Counter, ...]:
        """A request answered with 429, and each limit that refused it."""
        key = (route, tier, policies)
        counters = self._limited.get(key)
        if counters is None:
            refusing = [self._metrics.counter("edge_rate_limited_total", tier, name, "enforce") for name in policies]
            counters = self._limited[key] = (self.requests(route, tier, 429), *refusing)
        return counters

    def auth_failure(self, reason: str) -> None:
        """A request was refused for its key."""
        self._metrics.counter("edge_auth_failures_total", reason).add(1)

    def upstream_error(self, upstream: str, error: str) -> None:
        """A service failed a request; `error` is a type of RFC 9209."""
        self._metrics.counter("edge_upstream_errors_total", upstream, error).add(1)

    def table_full(self, table: str) -> None:
        """A table had no row to give."""
        self._metrics.counter("edge_table_full_total", table).add(1)

    def connections(self, side: str, n: int) -> None:
        """There are now `n` connections of this side, `client` or `upstream`."""
        self._metrics.gauge("edge_connections", side).set(n)
