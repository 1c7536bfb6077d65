"""The counters of a worker, under the names that metrics and invoices know."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from edgeproxy.base import log
from edgeproxy.edge.counters.counted_ids import CountedIds
from edgeproxy.edge.counters.index import RowUnavailableError, TableBusyError, TableFullError
from edgeproxy.edge.counters.meters import Counter, Histogram, Metrics, SharedGauge, UsageCounter, UsageMeters
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.usage_key import has_room
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering.error_counts import ErrorCounts
from edgeproxy.edge.proxy.metering.labels import format_status_label
from edgeproxy.edge.proxy.metering.split import DimensionValues

T = TypeVar("T")

LOG_SECONDS = 60.0
"""Seconds between two log lines about one full table."""

COUNTED_IDS = "counted.ids"
"""The file of the ids of stored answers that are counted."""
ODD_STATEMENTS = {
    "dialect": "an answer states usage in a shape that is not known",
    "long": "an answer states usage, and is too long to be read there",
    "zero": "an answer has text, and states an output of zero",
}
"""The reasons of missing usage that the log names."""

SHOWN_BYTES_MAX = 80
"""Logged bytes of an upstream's report at most."""

FULL = {
    "customers": "customers without a row are held to this worker's share of their limits",
    "addresses": "addresses without a row are held to this worker's share of their limits",
    "end_users": "end users without a row are held to this worker's share of their limits",
    "quotas": "customers without a row are held to this worker's share of their quotas",
    "usage": "what has no row is counted for customer -, route -",
    "metrics": "what has no row is not shown; nothing that is billed",
}
"""The consequence of each full table."""


class UsageMeter(NamedTuple):
    """A meter on a route, and the end of the keys of its rows, behind the customer (edge/counters/usage_key.py)."""

    name: str
    route: str
    key_end: bytes


class DiscardingCounter(Counter):
    """A counter without a word in the map."""

    def __init__(self) -> None:
        pass

    def add(self, n: int = 1) -> None:
        """Count nothing."""


DISCARDING = DiscardingCounter()


class WorkerMetrics:
    """The counters of one worker, in its store. edgeproxy.edge.metrics has the names and labels of metrics."""

    def __init__(self, store: Store) -> None:
        self._metrics: Metrics = store.meters
        self._billing: UsageMeters = store.billing
        # The counters know nothing of logs.
        self._billing.full = lambda: self.report_full_table("usage")
        self._folder = store.folder
        self._counted_ids: CountedIds | None = None
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self.values = DimensionValues()
        """The values of customers' dimensions that this worker has counted."""
        self.errors = ErrorCounts()
        """The errors of customers, which the supervisor reports."""
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._limited: dict[tuple[str, str, tuple[str, ...], int], tuple[Counter, ...]] = {}
        self._shed: dict[int, Counter] = {}
        self.discarding = DISCARDING
        """The counter of metrics that the table has no row for."""

    def get_usage_counter(self, customer: str, meter: str, route: str, split: str = "") -> UsageCounter:
        """Return the counter of billed usage, for dimensions as text.

        Raises RejectedError(503) if the table is busy for too long: no request is served uncounted.
        """
        try:
            return self._billing.counter(customer, meter, route, split)
        except TableBusyError as error:
            raise create_busy_error() from error

    def get_whole_usage_counter(self, customer: bytes, meter: UsageMeter) -> UsageCounter:
        """Return the counter of a customer's usage without dimensions. Raises RejectedError as `get_usage_counter`."""
        key = customer + meter.key_end
        if has_room(key):
            try:
                return UsageCounter(self._billing.table, key)
            except TableFullError:
                pass
            except TableBusyError as error:
                raise create_busy_error() from error
        return self.get_usage_counter(customer.decode(), meter.name, meter.route)

    def get_request_counter(self, route: str, tier: str, status: int) -> Counter:
        """Return the counter of requests answered with this status."""
        key = (route, tier, status)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._counter("edge_requests_total", route, tier, format_status_label(status))
            if counter is not DISCARDING:
                self._requests[key] = counter
        return counter

    def request_seconds(self, route: str) -> Histogram:
        """Return the histogram of whole requests on a route."""
        return self._metrics.histogram("edge_request_seconds", route)

    def overhead_seconds(self) -> Histogram:
        """Return the histogram of the edge's own part of requests."""
        return self._metrics.histogram("edge_overhead_seconds")

    def loop_lag_seconds(self) -> Histogram:
        """Return the histogram of the event loop's lag."""
        return self._metrics.histogram("edge_loop_lag_seconds")

    def loop_turn_seconds(self) -> Histogram:
        """Return the histogram of the length of the event loop's turns."""
        return self._metrics.histogram("edge_loop_turn_seconds")

    def upstream_seconds(self, upstream: str) -> Histogram:
        """Return the histogram of a service's response times."""
        return self._metrics.histogram("edge_upstream_seconds", upstream)

    def get_refusal_counters(
        self, route: str, tier: str, policies: tuple[str, ...], status: int = 429
    ) -> tuple[Counter, ...]:
        """Return the counters of a request answered with 429, or 402, and of each limit that refused it."""
        key = (route, tier, policies, status)
        counters = self._limited.get(key)
        if counters is None:
            refusing = [self._counter("edge_rate_limited_total", tier, name, "enforce") for name in policies]
            counters = (self.get_request_counter(route, tier, status), *refusing)
            # Not cached otherwise, so that they count once the table has room again.
            if DISCARDING not in counters:
                self._limited[key] = counters
        return counters

    def count_shadow_refusal(self, tier: str, policy: str) -> None:
        """Count a request that a limit in shadow mode would have refused."""
        self._counter("edge_rate_limited_total", tier, policy, "shadow").add(1)

    def count_credit_spent(self, tier: str) -> None:
        """Count a request that was beyond its limits, and paid with burst credits."""
        self._counter("edge_burst_credits_spent_total", tier).add(1)

    def settle(self) -> None:
        """Add the pending observations of histograms to the map."""
        self._metrics.settle()

    def count_limit_wait(self, policy: str) -> None:
        """Count a request that waits for the hub's answer."""
        self._counter("edge_limit_waits_total", policy).add(1)

    def observe_limit_wait(self, seconds: float) -> None:
        """Observe the seconds that such a request waited."""
        self._observe(seconds, "edge_limit_wait_seconds")

    def count_shed(self, priority: int) -> None:
        """Count a request that was refused because of overload."""
        counter = self._shed.get(priority)
        if counter is None:
            counter = self._counter("edge_shed_total", str(priority))
            if counter is not DISCARDING:
                self._shed[priority] = counter
        counter.add(1)

    def count_rule(self, rule: str, action: str) -> None:
        """Count a request that a rule matched, with the action taken."""
        self._counter("edge_rules_total", rule, action).add(1)

    def count_auth_failure(self, reason: str) -> None:
        """Count a request that was refused because of its key."""
        self._counter("edge_auth_failures_total", reason).add(1)

    def report_unreadable(self, meter: str, reported: bytes) -> None:
        """Record a report that is not a whole number: this meter counts nothing for that answer."""
        self._counter("edge_usage_unreadable_total", meter).add(1)
        # An upstream may send any bytes, and the log takes text.
        shown = reported[:SHOWN_BYTES_MAX].decode("ascii", "backslashreplace")
        self._log.error("an upstream's report is no whole number", meter, said=shown, then="nothing is counted by it")

    def count_missing(self, route: str, reason: str) -> None:
        """Count an answer whose body does not state an expected usage."""
        self._counter("edge_usage_missing_total", route, reason).add(1)
        if reason in ODD_STATEMENTS:
            self._log.error(ODD_STATEMENTS[reason], route, then="it is estimated if a model has worked for it")

    def report_disagreement(self, route: str, rule: str) -> None:
        """Report an answer whose parts and total disagree; `rule` has decided."""
        self._counter("edge_usage_disagreements_total", route, rule).add(1)
        self._log.info("an answer states parts and a total that disagree", f"{route}: {rule}", rule=rule)

    @property
    def counted_ids(self) -> CountedIds | None:
        """The ids of stored answers that are counted; None if their file cannot be used."""
        # Opened at first use: an edge that counts no stored answers has no such file.
        if self._counted_ids is None:
            try:
                self._counted_ids = CountedIds(self._folder / COUNTED_IDS)
            except OSError as error:
                self._log.error("stored answers cannot be counted", str(error), then="they count nothing")
        return self._counted_ids

    def observe_first_token(self, route: str, seconds: float) -> None:
        """Observe the seconds from a request to the beginning of a model's stream."""
        self._observe(seconds, "edge_time_to_first_token_seconds", route)

    def observe_output_token(self, route: str, seconds: float) -> None:
        """Observe the seconds of a model's stream for each output token after the first."""
        self._observe(seconds, "edge_time_per_output_token_seconds", route)

    def count_upstream_error(self, upstream: str, error: str) -> None:
        """Count a request that a service failed; `error` is a type of RFC 9209."""
        self._counter("edge_upstream_errors_total", upstream, error).add(1)

    def count_dropped_lines(self, lines: int) -> None:
        """Count lines of the access log that were not written."""
        self._counter("edge_access_log_dropped_total").add(lines)

    def count_retry(self, upstream: str) -> None:
        """Count a request that is sent to a service once more."""
        self._counter("edge_upstream_retries_total", upstream).add(1)

    def count_fallback(self, route: str, reason: str) -> None:
        """Count a request that goes to the fallback of its route.

        `reason`: a status, a type of RFC 9209, or `ejected`.
        """
        self._counter("edge_fallbacks_total", route, reason).add(1)

    def count_stale_connection(self, upstream: str) -> None:
        """Count a kept connection that its service closed as a request was sent. The request is sent again."""
        self._counter("edge_upstream_stale_total", upstream).add(1)

    def count_surplus(self, upstream: str, came: str) -> None:
        """Count a service that sent bytes that belong to no answer; `came`: with an answer, or after it."""
        self._counter("edge_upstream_surplus_total", upstream, came).add(1)

    def upstream_ejections(self, upstream: str) -> Counter:
        """Return the counter of a service's ejections."""
        return self._counter("edge_upstream_ejections_total", upstream)

    def upstream_pending(self, upstream: str) -> SharedGauge:
        """Return the gauge of requests to a service that wait for the head of an answer, in all workers."""
        return self._metrics.shared_gauge("edge_upstream_pending", upstream)

    def report_full_table(self, table: str, no_room: OSError | None = None) -> None:
        """Count that a table had no free row, and log it once a minute; `no_room`: the disk had none for more rows."""
        self._counter("edge_table_full_total", table).add(1)
        if no_room is not None:
            self._log.error("a table cannot grow", table, error=str(no_room), then=FULL[table])
            return
        self._log.error("a table is full", table, then=FULL[table])

    def clients(self) -> SharedGauge:
        """Return the gauge of connections of clients, in all workers."""
        return self._metrics.shared_gauge("edge_connections", "client")

    def set_upstream_connections(self, n: int) -> None:
        """Set the gauge of connections to upstreams."""
        self._set(n, "edge_connections", "upstream")

    def set_http2_connections(self, n: int) -> None:
        """Set the gauge of connections of clients that speak HTTP/2."""
        self._set(n, "edge_http2_connections")

    def set_held_bytes(self, n: int) -> None:
        """Set the gauge of the bytes that are held for clients."""
        self._set(n, "edge_held_bytes")

    def count_identities(self, recalled: int, looked_up: int, evicted: int) -> None:
        """Count cached keys, keys that had to be looked up, and keys that were evicted."""
        for result, number in (("remembered", recalled), ("looked_up", looked_up)):
            if number:
                self._counter("edge_identities_total", result).add(number)
        if evicted:
            self._counter("edge_identities_evicted_total").add(evicted)

    def count_held_exhausted(self, share: str) -> None:
        """Count a client that is ended for the bytes it holds.

        `share`: the bound of its connection, its address or the worker.
        """
        self._counter("edge_held_exhausted_total", share).add(1)

    def count_http2_streams(self, n: int) -> None:
        """Count streams that clients have begun."""
        self._counter("edge_http2_streams_total").add(n)

    def count_http2_reset(self, by: str, code: str) -> None:
        """Count a stream that was reset; `by`: client or edge."""
        self._counter("edge_http2_resets_total", by, code).add(1)

    def count_http2_goaway(self, code: str) -> None:
        """Count a connection that serves no further stream after a GOAWAY."""
        self._counter("edge_http2_goaways_total", code).add(1)

    def count_refused_connection(self, reason: str) -> None:
        """Count a refused connection, beyond the edge's bound (`total`) or its address's (`address`)."""
        self._counter("edge_connections_refused_total", reason).add(1)

    def count_failed_handshake(self) -> None:
        """Count a failed TLS handshake of a client."""
        self._counter("edge_tls_handshake_failures_total").add(1)

    def _counter(self, name: str, *labels: str) -> Counter:
        """Return the counter of a metric, or one that discards if the table has no row."""
        return self._find(self._metrics.counter, name, *labels) or DISCARDING

    def _observe(self, seconds: float, name: str, *labels: str) -> None:
        """Observe a duration in a histogram, if the table has a row for it."""
        histogram = self._find(self._metrics.histogram, name, *labels)
        if histogram is not None:
            histogram.observe(seconds)

    def _set(self, n: int, name: str, *labels: str) -> None:
        """Set a gauge, if the table has a row for it."""
        gauge = self._find(self._metrics.gauge, name, *labels)
        if gauge is not None:
            gauge.set(n)

    def _find(self, find: Callable[..., T], name: str, *labels: str) -> T | None:
        """Find the number of a metric. Return None if the table has no row: no request or sweep may fail for it."""
        try:
            return find(name, *labels)
        except RowUnavailableError:
            self._log.error("a table is full", "metrics", then=FULL["metrics"])
            return None


def create_busy_error() -> RejectedError:
    """Return the refusal of a request that cannot be counted now."""
    again = b"Retry-After: 1\r\n"
    return RejectedError(503, "This edge cannot count the request at the moment", close=False, fields=again)
