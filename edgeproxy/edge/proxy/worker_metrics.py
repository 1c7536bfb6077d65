"""What this worker counts, under the names that metrics and invoices know."""

from edgeproxy.base import log
from edgeproxy.edge.counters.index import RowUnavailableError, TableBusyError
from edgeproxy.edge.counters.meters import Counter, Histogram, Metrics, SharedGauge, UsageMeters
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.labels import code_label
from edgeproxy.edge.proxy.split_metering import DimensionValues

LOG_SECONDS = 60.0
"""Seconds between two log lines about one full table."""

SHOWN_BYTES_MAX = 80
"""Bytes of what an upstream said that are logged."""

FULL = {
    "customers": "customers without a row are held to this worker's share of their limits",
    "addresses": "addresses without a row are held to this worker's share of their limits",
    "quotas": "customers without a row are held to this worker's share of their quotas",
    "usage": "what has no row is counted for customer -, route -",
    "metrics": "what has no row is not shown; nothing that is billed",
}
"""What happens while a table is full."""


class DiscardingCounter(Counter):
    """A counter without a word in the map."""

    def __init__(self) -> None:
        pass

    def add(self, n: int = 1) -> None:
        """Count nothing."""


DISCARDING = DiscardingCounter()


class WorkerMetrics:
    """The counters of one worker, over its store's. Metric names and labels are those of edgeproxy.edge.metrics."""

    def __init__(self, store: Store) -> None:
        self._metrics: Metrics = store.meters
        self._billing: UsageMeters = store.billing
        self._billing.full = lambda: self.table_full("usage")
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self.values = DimensionValues()
        """The values of customers' dimensions that this worker has counted."""
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._limited: dict[tuple[str, str, tuple[str, ...], int], tuple[Counter, ...]] = {}
        self._shed: dict[int, Counter] = {}

    def usage(self, customer: str, meter: str, route: str, split: str = "") -> Counter:
        """What is billed, of dimensions as text.

        Raises RejectedError(503) where the table is busy for too long: nothing is served uncounted.
        """
        try:
            return self._billing.counter(customer, meter, route, split)
        except TableBusyError as error:
            again = b"Retry-After: 1\r\n"
            raise RejectedError(
                503, "This edge cannot count the request at the moment", close=False, fields=again
            ) from error

    def requests(self, route: str, tier: str, status: int) -> Counter:
        """Requests answered with this status."""
        key = (route, tier, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._counter("edge_requests_total", route, tier, code_label(status))
            if counter is not DISCARDING:
                self._requests[key] = counter
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

    def limited(self, route: str, tier: str, policies: tuple[str, ...], status: int = 429) -> tuple[Counter, ...]:
        """A request answered with 429, or 402, and each limit that refused it."""
        key = (route, tier, policies, status)
        counters = self._limited.get(key)
        if counters is None:
            refusing = [self._counter("edge_rate_limited_total", tier, name, "enforce") for name in policies]
            counters = (self.requests(route, tier, status), *refusing)
            if DISCARDING not in counters:
                self._limited[key] = counters
        return counters

    def shadowed(self, tier: str, policy: str) -> None:
        """A limit in shadow mode would have refused a request."""
        self._counter("edge_rate_limited_total", tier, policy, "shadow").add(1)

    def credited(self, tier: str) -> None:
        """A request was beyond its limits, and paid with burst credits."""
        self._counter("edge_burst_credits_spent_total", tier).add(1)

    def settle(self) -> None:
        """Add to the map what histograms hold."""
        self._metrics.settle()

    def limit_waits(self, policy: str) -> None:
        """A request waits until the hub was asked."""
        self._counter("edge_limit_waits_total", policy).add(1)

    def limit_waited(self, seconds: float) -> None:
        """It waited for so long."""
        try:
            self._metrics.histogram("edge_limit_wait_seconds").observe(seconds)
        except RowUnavailableError:
            self._log.error("a table is full", "metrics", then=FULL["metrics"])

    def shed(self, priority: int) -> None:
        """A request was turned away because there was too much to do."""
        counter = self._shed.get(priority)
        if counter is None:
            counter = self._counter("edge_shed_total", str(priority))
            if counter is not DISCARDING:
                self._shed[priority] = counter
        counter.add(1)

    def ruled(self, rule: str, action: str) -> None:
        """A rule was about a request, and this was done."""
        self._counter("edge_rules_total", rule, action).add(1)

    def auth_failure(self, reason: str) -> None:
        """A request was refused for its key."""
        self._counter("edge_auth_failures_total", reason).add(1)

    def unreadable(self, meter: str, reported: bytes) -> None:
        """Record a report that is no whole number: nothing is counted by this meter for that answer."""
        self._counter("edge_usage_unreadable_total", meter).add(1)
        shown = reported[:SHOWN_BYTES_MAX].decode("ascii", "backslashreplace")
        self._log.error("an upstream's report is no whole number", meter, said=shown, then="nothing is counted by it")

    def upstream_error(self, upstream: str, error: str) -> None:
        """A service failed a request; `error` is a type of RFC 9209."""
        self._counter("edge_upstream_errors_total", upstream, error).add(1)

    def access_log_dropped(self, lines: int) -> None:
        """So many lines of the access log were not written."""
        self._counter("edge_access_log_dropped_total").add(lines)

    def upstream_retry(self, upstream: str) -> None:
        """A request is sent to a service once more."""
        self._counter("edge_upstream_retries_total", upstream).add(1)

    def upstream_stale(self, upstream: str) -> None:
        """A kept connection to a service was closed as a request came over it, and that goes out again."""
        self._counter("edge_upstream_stale_total", upstream).add(1)

    def upstream_surplus(self, upstream: str, came: str) -> None:
        """A service sent bytes that belong to no answer; `came`: with an answer, or after it."""
        self._counter("edge_upstream_surplus_total", upstream, came).add(1)

    def upstream_ejections(self, upstream: str) -> Counter:
        """Endpoints of a service that were left out."""
        return self._counter("edge_upstream_ejections_total", upstream)

    def upstream_pending(self, upstream: str) -> SharedGauge:
        """Requests to a service that wait for the head of an answer, in all workers."""
        return self._metrics.shared_gauge("edge_upstream_pending", upstream)

    def table_full(self, table: str) -> None:
        """A table had no row to give: counted each time, said once a minute."""
        self._counter("edge_table_full_total", table).add(1)
        self._log.error("a table is full", table, then=FULL[table])

    def clients(self) -> SharedGauge:
        """Connections of clients, in all workers."""
        return self._metrics.shared_gauge("edge_connections", "client")

    def upstream_connections(self, n: int) -> None:
        """There are now `n` connections to upstreams."""
        self._metrics.gauge("edge_connections", "upstream").set(n)

    def connection_refused(self, reason: str) -> None:
        """A client's connection was one too many, of the edge's (`total`) or of its address's (`address`)."""
        self._counter("edge_connections_refused_total", reason).add(1)

    def handshake_failed(self) -> None:
        """A client's TLS handshake came to nothing."""
        self._counter("edge_tls_handshake_failures_total").add(1)

    def _counter(self, name: str, *labels: str) -> Counter:
        """The counter of a metric. Where the table has no row for it, one that nobody sees: no request fails for it."""
        try:
            return self._metrics.counter(name, *labels)
        except RowUnavailableError:
            self._log.error("a table is full", "metrics", then=FULL["metrics"])
            return DISCARDING
