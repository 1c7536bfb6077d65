"""What the collector counts of itself. The one file of its room that knows prometheus-client."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from edgeproxy.collector.chain import Verdict
from edgeproxy.metrics import BUCKETS

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The metrics of one collector. Labels are from here and from the configuration, never from requests."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.batches = Counter(
            "collector_batches_total", "Batches, by what became of them", ("result",), registry=registry
        )
        for verdict in Verdict:
            self.batches.labels(verdict.value)
        self.rows = Counter("collector_rows_total", "Usage rows counted", registry=registry)
        self.busy = Counter("collector_busy_total", "Batches whose senders were asked to come back", registry=registry)
        self.failures = Counter("collector_commit_failures_total", "Transactions that failed", registry=registry)
        self.denied = Counter("collector_denied_total", "Requests without the token they need", registry=registry)
        self.waiting = Gauge("collector_waiting_batches", "Batches that wait for a transaction", registry=registry)
        self.commit_seconds = Histogram(
            "collector_commit_seconds", "From a transaction's begin to its end", buckets=BUCKETS, registry=registry
        )
        self.edges = Gauge("collector_edges", "Edges that have shipped", registry=registry)
        self.lag = Gauge(
            "collector_lag_seconds",
            "Since the end of the last batch of the edge most behind",
            registry=registry,
        )
        self.gaps = Gauge("collector_gaps", "Gaps that edges have owned up to", registry=registry)
        self.quarantined = Gauge("collector_quarantined_batches", "Batches that nobody could read", registry=registry)
        self.unknown = Gauge(
            "collector_unknown_names", "Names with usage that the configuration lacks", ("kind",), registry=registry
        )

    def exposition(self) -> bytes:
        """The text of `GET /metrics`."""
        return generate_latest(self._registry)
