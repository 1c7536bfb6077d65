"""Prometheus metrics of the collector itself and of the edges that report to it."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.collector.accounts.limit_raises import RaiseStatus
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.credits.purchases import RESULTS, PurchaseResults
from edgeproxy.collector.billing.meter_export.outbox import Reply
from edgeproxy.collector.billing.reports.revenue import RevenueFigures
from edgeproxy.collector.billing.reports.status import BillingStatus as BillingStanding
from edgeproxy.collector.billing_metrics import build_billing_families, build_revenue_families
from edgeproxy.collector.database.periodic import JobResult, JobRun
from edgeproxy.collector.events.event_writer import Receipt
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.edges import EdgeStatus
from edgeproxy.collector.quotas import quota_alerts
from edgeproxy.collector.webhooks.deliveries import Backlog
from edgeproxy.tracing.exporter import DROP_REASONS, SpanExporter

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
EFFECT_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0, 120.0, 600.0, 3600.0)
"""Upper bounds in seconds from an event to its effect. The objective for the median is below 45."""


class Metrics:
    """The metrics of one collector. Labels come from the code and the configuration, never from requests.

    Names of edges are not in the configuration. So only edges with a configured token are named, and at most as many as
    `EdgeStatus` has.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.batches = Counter(
            "collector_batches_total", "Batches, by what became of them", ("result",), registry=registry
        )
        for verdict in Verdict:
            self.batches.labels(verdict.value)
        self.rows = Counter("collector_rows_total", "Usage rows counted", registry=registry)
        self.events = Counter(
            "collector_events_total", "Events, by what became of them", ("result",), registry=registry
        )
        for result in ("accepted", "duplicate", "rejected"):
            self.events.labels(result)
        self.busy = Counter("collector_busy_total", "Requests whose senders were asked to come back", registry=registry)
        self.failures = Counter("collector_commit_failures_total", "Transactions that failed", registry=registry)
        self.denied = Counter("collector_denied_total", "Requests without the token they need", registry=registry)
        self.waiting = Gauge("collector_waiting_batches", "Batches that wait for a transaction", registry=registry)
        self.commit_seconds = Histogram(
            "collector_commit_seconds",
            "From a transaction's begin to its end",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.upkeep_failures = Counter(
            "collector_upkeep_failures_total", "Times that roll-up or retention failed", registry=registry
        )
        self.quota_failures = Counter(
            "collector_quota_failures_total", "Times that quotas could not be looked at", registry=registry
        )
        self.job_runs = Counter(
            "collector_job_runs_total", "Runs of jobs, by what they came to", ("name", "result"), registry=registry
        )
        self.job_seconds = Gauge(
            "collector_job_last_run_seconds", "How long the last run of a job took", ("name",), registry=registry
        )
        self.job_period = Gauge(
            "collector_job_period_seconds", "How long a job rests after a run", ("name",), registry=registry
        )
        self.job_success = Gauge(
            "collector_job_last_success_timestamp_seconds",
            "When a run of a job last succeeded, the Unix second",
            ("name",),
            registry=registry,
        )
        self.unproven = Gauge(
            "collector_unproven_edges",
            "Edges whose old batches are kept, as they do not prove what was counted",
            registry=registry,
        )
        self.leaked = Counter(
            "collector_leaked_keys_total", "Keys that were revoked as somebody had found them", registry=registry
        )
        self.keys_due_for_rotation = Gauge(
            "collector_keys_due_for_rotation", "Keys past the time by which they should be rotated", registry=registry
        )
        self.webhooks_refused = Counter(
            "billing_webhooks_refused_total", "Webhooks that are not signed by Stripe, or no events", registry=registry
        )
        self.webhook_seconds = Histogram(
            "billing_webhook_seconds",
            "From an event of Stripe's to its effect",
            buckets=EFFECT_BUCKETS,
            registry=registry,
        )
        self.billing_requests = Counter(
            "billing_requests_total", "Answers of the API of billing, by status", ("code",), registry=registry
        )
        self.billing_seconds = Histogram(
            "billing_request_seconds", "Of requests to the API of billing", buckets=LATENCY_BUCKETS, registry=registry
        )
        self.exports = Counter(
            "billing_export_total", "Meter events sent to Stripe, by what came of them", ("result",), registry=registry
        )
        for reply in Reply:
            self.exports.labels(reply.value)
        self.aggregation_seconds = Histogram(
            "billing_aggregation_seconds",
            "From the ledger to slices of usage",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.cap_hits = Counter(
            "billing_cap_hits_total",
            "Times that a customer used up a quota or cap, by its name",
            ("cap",),
            registry=registry,
        )
        self.breaker = Counter(
            "billing_breaker_total", "Times that a customer was paused for its usage", registry=registry
        )
        self.checkout_sessions = Counter(
            "billing_checkout_sessions_total", "Purchases of credits that were begun", registry=registry
        )
        self.purchases = Counter(
            "billing_purchases_total",
            "Purchases of credits, by what came of them",
            ("result",),
            registry=registry,
        )
        self._purchase_results = PurchaseResults()
        for result in RESULTS.values():
            self.purchases.labels(result)
        self.revenue: RevenueFigures | None = None
        """Revenue figures. Only one collector computes them."""
        self.config_ok = Gauge("collector_config_ok", "1 unless the last reload was refused", registry=registry)
        self.goods: list[ScarceGood] = []
        """The scarce goods of this collector."""
        self.spans: SpanExporter | None = None
        """The exporter of spans."""
        self.row_security: Callable[[], bool] | None = None
        """Returns whether row-level security isolates customers; None for SQLite."""
        self.limit_raises = RaiseStatus(0, None)
        """The raises of limits, as last seen by the job that ends them."""
        self.expiry: Callable[[], dict[str, float]] = dict
        """The Unix second when each certificate expires, by file."""
        self.region_reports = Counter(
            "collector_region_reports_total",
            "Reports of latencies, by whether they count",
            ("result",),
            registry=registry,
        )
        for result in ("taken", "ignored"):
            self.region_reports.labels(result)
        self.region_networks = Gauge(
            "collector_region_networks", "Networks that have reported latencies", registry=registry
        )
        self.unknown = Gauge(
            "collector_unknown_names",
            "Names with usage that neither the configuration nor the database has",
            ("kind",),
            registry=registry,
        )

        self.alerts = Counter(
            "collector_alerts_total", "Alerts that were raised, by kind", ("kind",), registry=registry
        )
        self.alert_attempts = Counter(
            "collector_alert_attempts_total",
            "Attempts to send an alert, by channel and by what became of it",
            ("channel", "result"),
            registry=registry,
        )
        self.alert_deliveries = Gauge(
            "collector_alert_deliveries",
            "Deliveries of alerts that are still to be made (due), and that were given up (dead)",
            ("state",),
            registry=registry,
        )
        self.alerts_outstanding(0, 0)
        self.webhook_attempts = Counter(
            "collector_webhook_attempts_total",
            "Attempts to send to an endpoint of a customer, by what became of them",
            ("result",),
            registry=registry,
        )
        for result in ("sent", "failed", "dead"):
            self.webhook_attempts.labels(result)
        self.webhook_deliveries = Gauge(
            "collector_webhook_deliveries",
            "Messages to endpoints of customers that are still to be sent (due), and that were given up (dead)",
            ("state",),
            registry=registry,
        )
        for state in ("due", "dead"):
            self.webhook_deliveries.labels(state)
        self.webhook_lag = Gauge(
            "collector_webhook_lag_seconds", "Since the message that is overdue longest was due", registry=registry
        )

    def alert_raised(self, kind: str, key: str) -> None:
        """Count an alert and, for some kinds, its subject."""
        self.alerts.labels(kind).inc()
        if kind == AlertKind.CUSTOMER_PAUSED:
            self.breaker.inc()
        elif kind == AlertKind.QUOTA_REACHED:
            name, percent = quota_alerts.parse_alert_key(key)
            if percent == 100:  # Each cap has this threshold, unless its alerts are off.
                self.cap_hits.labels(name).inc()

    def alert_tried(self, channel: str, result: str) -> None:
        """Count an attempt to send an alert: `sent`, `failed`, or `dead` if it was the last one."""
        self.alert_attempts.labels(channel, result).inc()

    def alerts_outstanding(self, due: int, dead: int) -> None:
        """Set the number of outstanding alert deliveries."""
        self.alert_deliveries.labels("due").set(due)
        self.alert_deliveries.labels("dead").set(dead)

    def webhook_tried(self, result: str) -> None:
        """Count an attempt to send to a customer's endpoint: `sent`, `failed`, or `dead` if it was the last one."""
        self.webhook_attempts.labels(result).inc()

    def webhooks_outstanding(self, backlog: Backlog, now: float) -> None:
        """Set the number of outstanding messages to customers' endpoints at this Unix second."""
        self.webhook_deliveries.labels("due").set(backlog.due)
        self.webhook_deliveries.labels("dead").set(backlog.dead)
        self.webhook_lag.set(max(0.0, now - (backlog.oldest_due_at or now * 1000) / 1000))

    def took(self, revenue: RevenueFigures | None) -> None:
        """Export these revenue figures; None: another collector does."""
        self.revenue = revenue

    def billing_answered(self, status: int, seconds: float) -> None:
        """Count an answer of the billing API."""
        self.billing_requests.labels(str(status)).inc()
        self.billing_seconds.observe(seconds)

    def purchased(self, events: Collection[str], object_: Mapping[str, object]) -> None:
        """Count purchases reported by events."""
        for result in self._purchase_results.report(events, object_):
            self.purchases.labels(result).inc()

    def count_export(self, reply: Reply) -> None:
        """Count a meter event that was sent."""
        self.exports.labels(reply.value).inc()

    def record_slicing(self, seconds: float) -> None:
        """Observe the duration of fixing slices of usage."""
        self.aggregation_seconds.observe(seconds)

    def events_settled(self, receipt: Receipt) -> None:
        """Count the events of a request by their outcome."""
        self.events.labels("accepted").inc(receipt.accepted)
        self.events.labels("duplicate").inc(receipt.duplicates)
        self.events.labels("rejected").inc(len(receipt.rejected))

    def record_job(self, run: JobRun) -> None:
        """Record a run of a job."""
        name = run.job.name
        self.job_runs.labels(name, run.result.value).inc()
        self.job_seconds.labels(name).set(run.seconds)
        self.job_period.labels(name).set(run.job.seconds)
        if run.result is JobResult.SUCCEEDED:
            self.job_success.labels(name).set(time.time())

    def queued(self, batches: int) -> None:
        """Set the number of batches that wait for a transaction."""
        self.waiting.set(batches)

    def committed(self, seconds: float) -> None:
        """Observe the duration of a transaction."""
        self.commit_seconds.observe(seconds)

    def failed(self) -> None:
        """Count a transaction that failed."""
        self.failures.inc()

    def settled(self, verdict: Verdict, rows: int) -> None:
        """Count a batch by its verdict, and its counted rows."""
        self.batches.labels(verdict.value).inc()
        self.rows.inc(rows)

    def unknown_names(self, kind: str, count: int) -> None:
        """Set the number of names of this kind with usage that the configuration lacks."""
        self.unknown.labels(kind).set(count)

    def exposition(
        self,
        ready: bool,
        status: EdgeStatus | None,
        billing: BillingStanding | None = None,
        *,
        tells_money: bool = True,
    ) -> bytes:
        """Return the text of `GET /metrics`. Unknown figures of edges or billing are left out instead of outdated.

        Revenue is included only with `tells_money`.
        """
        now = time.time()
        families: list[Metric] = [
            family("collector_ready", "Whether it takes batches now, as /readyz says", int(ready))
        ]
        if self.row_security is not None:
            about = "1 where PostgreSQL shows requests of a customer that customer's rows alone"
            families.append(family("collector_row_security", about, int(self.row_security())))
        left = {name: int(end - now) for name, end in self.expiry().items()}
        families.append(
            build_labelled_family(
                "collector_tls_expiry_seconds", "Until a certificate expires; below 0 it has", "name", left
            )
        )
        families += build_good_families(self.goods)
        families += build_raise_families(self.limit_raises, now)
        if self.spans is not None:
            families += build_span_families(self.spans)
        if status is not None:
            families += build_edge_families(status, now)
        if billing is not None:
            families += build_billing_families(billing)
        if self.revenue is not None and tells_money:
            families += build_revenue_families(self.revenue)
        return generate_latest(self._registry) + generate_latest(FixedRegistry(families))


class FixedRegistry(CollectorRegistry):
    """A registry with fixed metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        super().__init__()
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        return iter(self._families)


def build_span_families(exporter: SpanExporter) -> list[CounterMetricFamily]:
    """Build the metrics of traces."""
    exported = CounterMetricFamily("collector_trace_spans_exported", "Spans that a receiver has accepted")
    exported.add_metric((), exporter.exported)
    dropped = CounterMetricFamily(
        "collector_trace_spans_dropped", "Spans that were dropped, by why", labels=("reason",)
    )
    for reason in DROP_REASONS:
        dropped.add_metric((reason,), exporter.dropped[reason])
    return [exported, dropped]


def build_good_families(goods: Iterable[ScarceGood]) -> list[Metric]:
    """Build the metrics of scarce goods."""
    amount = GaugeMetricFamily("collector_scarce_amount", "Units that there are of a scarce good", labels=("good",))
    in_use = GaugeMetricFamily("collector_scarce_in_use", "Units of it that are in use", labels=("good",))
    about = "Times that somebody got nothing of it, or had to wait"
    refused = CounterMetricFamily("collector_scarce_refused", about, labels=("good",))
    for good in goods:
        amount.add_metric((good.name,), good.get_amount())
        in_use.add_metric((good.name,), good.count_in_use())
        refused.add_metric((good.name,), good.refused)
    return [amount, in_use, refused]


def build_raise_families(raises: RaiseStatus, now: float) -> list[GaugeMetricFamily]:
    """Build the metrics of raised limits."""
    overdue = 0.0 if raises.first_end is None else max(0.0, now - raises.first_end)
    about = "Since the end of the raise of limits that should have left the directory first; 0 where none should"
    return [
        family("collector_limit_raises", "Customers whose limits are raised for a while", raises.customers),
        family("collector_limit_raise_overdue_seconds", about, overdue),
    ]


def build_edge_families(status: EdgeStatus, now: float) -> list[GaugeMetricFamily]:
    """Build the edge metrics."""
    lags = {edge: max(0.0, now - until) for edge, until in status.until.items()}
    return [
        family("collector_edges", "Edges that have shipped, without those that are retired", status.edges),
        family("collector_edges_retired", "Edges that are gone for good, as somebody said", status.retired),
        family(
            "collector_edges_unshown", "Edges whose lag and gaps are not below, as others' are worse", status.unshown
        ),
        family(
            "collector_lag_seconds",
            "Since the end of the last batch of the edge most behind",
            max(lags.values(), default=0),
        ),
        build_labelled_family("collector_edge_lag_seconds", "The same of each edge, those most behind", "edge", lags),
        family("collector_gaps", "Gaps that edges have owned up to", status.gaps),
        build_labelled_family(
            "collector_edge_gaps", "The same of each edge, those that have most", "edge", status.gaps_of
        ),
        family("collector_quarantined_batches", "Batches that nobody could read", status.quarantined),
    ]


def family(name: str, about: str, value: float) -> GaugeMetricFamily:
    """Return the family of a gauge."""
    return GaugeMetricFamily(name, about, value=value)


def build_labelled_family(name: str, about: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """Build a gauge with one sample per value of its label."""
    family = GaugeMetricFamily(name, about, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
