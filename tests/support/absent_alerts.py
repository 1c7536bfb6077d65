"""Alerts for absent metrics: `python -m tests.support.absent_alerts` writes config/prometheus/absent.yml.

Each metric in an alert or a panel has one, unless `SOMETIMES` has a reason for its absence.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from loadtest.testbed.process import ROOT

PROMETHEUS = ROOT / "config" / "prometheus"
FILE = PROMETHEUS / "absent.yml"
METRIC = re.compile(r"(?<![:\w])(?:edge|collector|billing|edgeproxy)_\w+")
EVENT = "it is there from the first such event on"
REQUESTS = "it is there from the first request on"
OTHERS = "another job tells it, and has an alert of its own"
FEATURE = "it is there with the feature alone"
MONEY = "it is there from the first money of its kind on"
SOMETIMES: dict[str, str] = {
    **dict.fromkeys(
        (
            "billing_breaker_total",
            "billing_checkout_sessions_total",
            "billing_export_total",
            "billing_invoice_held",
            "billing_invoices",
            "billing_purchases_total",
            "billing_requests_total",
            "collector_batches_total",
            "collector_denied_total",
            "collector_region_reports_total",
            "collector_unknown_names",
            "edge_auth_failures_total",
            "edge_burst_credits_spent_total",
            "edge_config_reloads_total",
            "edge_connections_refused_total",
            "edge_directory_lookups_total",
            "edge_dns_failures_total",
            "edge_limit_wait_seconds_bucket",
            "edge_limit_waits_total",
            "edge_rate_limited_total",
            "edge_shed_total",
            "edge_table_full_total",
            "edge_upstream_ejections_total",
            "edge_upstream_errors_total",
            "edge_upstream_retries_total",
            "edge_usage_batches_total",
            "edge_usage_missing_total",
            "edge_usage_unreadable_total",
        ),
        EVENT,
    ),
    **dict.fromkeys(
        (
            "edge_overhead_seconds_bucket",
            "edge_request_seconds_bucket",
            "edge_request_seconds_count",
            "edge_requests_total",
            "edge_upstream_seconds_bucket",
            "edge_upstream_seconds_count",
            "edge_usage_counted_total",
        ),
        REQUESTS,
    ),
    **dict.fromkeys(
        (
            "edgeproxy_job_last_success_timestamp_seconds",
            "edgeproxy_job_period_seconds",
            "edgeproxy_probe_finished_seconds",
            "edgeproxy_probe_ok",
            "edgeproxy_probe_seconds",
        ),
        OTHERS,
    ),
    **dict.fromkeys(
        (
            "billing_charging",
            "billing_draft_unheld_seconds",
            "billing_export_lag_seconds",
            "billing_outbox_rows",
            "billing_rollout_percent",
            "billing_webhook_events",
            "collector_row_security",
            "collector_tls_expiry_seconds",
            "edge_access_log_dropped_total",
            "edge_acme_failures",
            "edge_directory_version",
            "edge_hub_up",
            "edge_issuer_keys_age_seconds",
            "edge_time_per_output_token_seconds_count",
            "edge_time_per_output_token_seconds_sum",
            "edge_time_to_first_token_seconds_bucket",
            "edge_tls_expiry_seconds",
            "edge_usage_sealing_ok",
        ),
        FEATURE,
    ),
    **dict.fromkeys(
        (
            "billing_cogs",
            "billing_conversion_rate",
            "billing_drift_ratio",
            "billing_margin",
            "billing_margin_ratio",
            "billing_model_cost",
            "billing_reconciled_seconds",
            "billing_refunds",
            "billing_revenue",
        ),
        MONEY,
    ),
}
"""Metrics that an edge or a collector that is well may lack, with the reason."""
GUARDS = {
    "billing_": "billing_rollout_percent",
    "edge_directory_": "edge_directory_version",
    "edge_hub_": "edge_hub_up",
    "edge_limit": "edge_hub_up",
    "edge_usage_": "edge_usage_sealing_ok",
}
"""A metric that is there if a feature is used, by the beginning of the names of the feature's metrics."""
COUNTS = {"collector_edge_gaps": "collector_edges", "collector_edge_lag_seconds": "collector_edges"}
"""The metrics with a sample for each of some things, and the metric that counts the things: at 0 there is no sample."""
HEAD = """\
# Metrics that alerts or panels read and that a target no longer has: without them an alert never fires.
# Written by `python -m tests.support.absent_alerts`; metrics that may be away are listed there with the reason.
groups:
  - name: edgeproxy-absent
    rules:
"""
RULE = """\
      - alert: MetricAbsent
        expr: {there} unless on (job, instance) {metric}{{job="{job}"}}{none}
        for: 15m
        labels: {{severity: warning, team: {team}, metric: {metric}}}
        annotations:
          summary: "{{{{ $labels.instance }}}} does not tell {metric}"
          description: "Alerts or panels read it, and say nothing without it. A token for metrics may be missing."
          runbook_url: "{{{{ $externalLabels.runbooks }}}}docs/operations/alerts.md#metricabsent"
"""


def list_metrics() -> list[str]:
    """List the metrics that alerts, recorded rules and panels read."""
    expressions = list(_list_expressions(yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())))
    expressions += _list_expressions(yaml.safe_load((PROMETHEUS / "objectives.yml").read_text()))
    for file in sorted((ROOT / "config" / "grafana" / "dashboards").glob("*.json")):
        expressions += _list_expressions(json.loads(file.read_text()))
    return sorted({name for expression in expressions for name in METRIC.findall(expression)})


def _list_expressions(part: Any) -> Iterator[str]:
    """Yield the expressions in a file of rules or of a dashboard."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "expr" and isinstance(value, str):
                yield value
            else:
                yield from _list_expressions(value)
    elif isinstance(part, list):
        for value in part:
            yield from _list_expressions(value)


def list_required() -> list[str]:
    """List the metrics with an alert."""
    return [name for name in list_metrics() if name not in SOMETIMES]


def render() -> str:
    """Render the file."""
    rules = []
    for metric in list_required():
        is_edge, is_money = metric.startswith("edge_"), metric.startswith("billing_")
        job = "edgeproxy" if is_edge else "collector"
        guard = next((guard for begin, guard in GUARDS.items() if metric.startswith(begin)), None)
        there = f'up{{job="{job}"}} == 1' if guard is None else f'{guard}{{job="{job}"}}'
        none = f' unless on (job, instance) {COUNTS[metric]}{{job="{job}"}} == 0' if metric in COUNTS else ""
        team = "billing" if is_money else "platform"
        rules.append(RULE.format(there=there, metric=metric, job=job, none=none, team=team))
    return HEAD + "\n".join(rules)


if __name__ == "__main__":
    FILE.write_text(render())
