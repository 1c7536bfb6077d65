"""Every metric of the edge in one literal table: its name, kind, labels and meaning (docs/design/contract.md#metrics).

Workers add to them in the memory map, the supervisor presents the map; both look names up here, so a metric that is not
in this table cannot be counted.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

Words = Sequence[int]
"""[value], or of a histogram each bucket's own count and then the sum in nanoseconds."""

Series = tuple[str, tuple[str, ...], Words]
"""Name, label values, words."""


class Metric(NamedTuple):
    """One metric family. Label values are given in the order of `labels`."""

    kind: Kind
    labels: tuple[str, ...]
    help: str


METRICS: dict[str, Metric] = {
    "edge_build_info": Metric("gauge", ("version", "build"), "1: what runs, pure Python or compiled modules"),
    "edge_requests_total": Metric("counter", ("route", "tier", "code"), "Requests answered"),
    "edge_request_seconds": Metric("histogram", ("route",), "From a request's first byte to its answer's last"),
    "edge_overhead_seconds": Metric("histogram", (), "The edge's own part: without the upstream's and the hub's"),
    "edge_time_to_first_token_seconds": Metric("histogram", ("route",), "From a request to the first of its stream"),
    "edge_time_per_output_token_seconds": Metric("histogram", ("route",), "Of a stream, between its output tokens"),
    "edge_rate_limited_total": Metric("counter", ("tier", "policy", "mode"), "Requests refused by a limit"),
    "edge_burst_credits_spent_total": Metric("counter", ("tier",), "Requests beyond a limit that credits paid for"),
    "edge_shed_total": Metric("counter", ("priority",), "Requests turned away because there was too much to do"),
    "edge_loop_lag_seconds": Metric("histogram", (), "How late workers' event loops are for their samples"),
    "edge_loop_turn_seconds": Metric("histogram", (), "Turns of workers' event loops"),
    "edge_rules_total": Metric("counter", ("rule", "action"), "Requests that a rule was about, and what was done"),
    "edge_auth_failures_total": Metric("counter", ("reason",), "Requests refused for their key"),
    "edge_upstream_seconds": Metric("histogram", ("upstream",), "From a request's head sent to its answer's head"),
    "edge_upstream_errors_total": Metric("counter", ("upstream", "error"), "Upstream faults, by RFC 9209 error type"),
    "edge_upstream_ejections_total": Metric("counter", ("upstream",), "Endpoints left out for a while by a worker"),
    "edge_upstream_retries_total": Metric("counter", ("upstream",), "Requests sent to an upstream once more"),
    "edge_fallbacks_total": Metric("counter", ("route", "reason"), "Requests that went to the fallback of their route"),
    "edge_upstream_stale_total": Metric("counter", ("upstream",), "Requests lost by a kept connection, and sent again"),
    "edge_upstream_surplus_total": Metric("counter", ("upstream", "came"), "Connections with bytes behind an answer"),
    "edge_upstream_pending": Metric("gauge", ("upstream",), "Where there is a breaker: requests waiting for an answer"),
    "edge_upstream_endpoints": Metric("gauge", ("upstream", "state"), "Addresses of an upstream: up or down"),
    "edge_dns_failures_total": Metric("counter", ("upstream",), "Look-ups of an upstream's names that failed"),
    "edge_connections": Metric("gauge", ("side",), "Open connections: client or upstream"),
    "edge_access_log_dropped_total": Metric("counter", (), "Lines of the access log that could not be written"),
    "edge_trace_spans_exported_total": Metric("counter", (), "Spans that a receiver has accepted"),
    "edge_trace_spans_dropped_total": Metric("counter", ("reason",), "Spans that no receiver has, by why"),
    "edge_connections_refused_total": Metric("counter", ("reason",), "Connections refused: too many, or of an address"),
    "edge_identities_total": Metric(
        "counter",
        ("result",),
        "Keys of heads that a worker does not remember: remembered with their customer, or looked_up",
    ),
    "edge_identities_evicted_total": Metric(
        "counter", (), "Customers that workers forgot, as limits.remembered was used up"
    ),
    "edge_held_bytes": Metric("gauge", (), "Bytes that workers hold for clients in memory"),
    "edge_held_exhausted_total": Metric("counter", ("share",), "Clients ended for the bytes they hold, by the bound"),
    "edge_http2_connections": Metric("gauge", (), "Open connections of clients that speak HTTP/2"),
    "edge_http2_streams_total": Metric("counter", (), "Streams that clients have begun: requests over HTTP/2"),
    "edge_http2_resets_total": Metric("counter", ("by", "code"), "Streams reset, by the client or the edge"),
    "edge_http2_goaways_total": Metric("counter", ("code",), "HTTP/2 connections that the edge has ended"),
    "edge_tls_handshake_failures_total": Metric("counter", (), "TLS handshakes of clients that failed"),
    "edge_hub_up": Metric("gauge", (), "Whether the hub answers"),
    "edge_hub_nodes_away": Metric("gauge", (), "Nodes of the hub that do not answer"),
    "edge_hub_functions_missing": Metric("gauge", (), "Nodes of the hub that lack the functions of this version"),
    "edge_hub_errors_total": Metric("counter", (), "Times that the hub was lost, not reached, or refused"),
    "edge_hub_hosts": Metric("gauge", (), "Hosts that the hub knows, this one among them"),
    "edge_limit_sync_age_seconds": Metric("gauge", (), "Since the hub's last answer, or since a report is due"),
    "edge_limits_shared": Metric("gauge", (), "Limits in use that are told to the hub"),
    "edge_limit_waits_total": Metric("counter", ("policy",), "Requests that waited for the hub"),
    "edge_limit_wait_seconds": Metric("histogram", (), "How long they waited; no part of the edge's own time"),
    "edge_directory_customers": Metric("gauge", (), "Customers of the directory"),
    "edge_directory_keys": Metric("gauge", (), "Keys of the directory"),
    "edge_directory_version": Metric("gauge", (), "The version of the directory that counts here"),
    "edge_directory_age_seconds": Metric("gauge", (), "Since this version was last known to be the newest"),
    "edge_directory_signed_age_seconds": Metric("gauge", (), "Since the newest signed time of the directory"),
    "edge_directory_refused_total": Metric("counter", (), "Looks at the directory that found what must not count"),
    "edge_directory_unserved": Metric("gauge", (), "Customers of the directory whose tier is not known here"),
    "edge_directory_lookups_total": Metric("counter", ("result",), "Keys that workers asked for"),
    "edge_directory_conflicts_total": Metric("counter", (), "Keys looked up that several residencies have"),
    "edge_usage_counted_total": Metric("counter", ("meter",), "Units counted for billing"),
    "edge_usage_missing_total": Metric(
        "counter", ("route", "reason"), "Answers whose bodies do not state the usage that they should"
    ),
    "edge_usage_disagreements_total": Metric(
        "counter", ("route", "rule"), "Answers whose stated parts and total disagree, by the rule that decides"
    ),
    "edge_usage_unreadable_total": Metric("counter", ("meter",), "Reports of upstreams that are no whole number"),
    "edge_usage_unshipped": Metric("gauge", (), "Units counted that the collector has not acknowledged"),
    "edge_usage_unshipped_seconds": Metric("gauge", (), "Age of the oldest of these"),
    "edge_usage_spool_bytes": Metric("gauge", (), "Bytes of the spool on disk, acknowledged batches among them"),
    "edge_usage_watermark": Metric("gauge", (), "The last batch that the collector acknowledged"),
    "edge_usage_batches_total": Metric("counter", ("result",), "Attempts to ship a batch, by what came of them"),
    "edge_usage_shipping_ok": Metric("gauge", (), "0 while shipping has stopped and somebody has to look"),
    "edge_usage_sealing_ok": Metric("gauge", (), "0 while usage cannot be sealed, or something about it is odd"),
    "edge_usage_aside": Metric("gauge", (), "States that were set aside, and wait for `spool adopt` or `discard`"),
    "edge_residency_unshipped_batches": Metric(
        "gauge", ("residency",), "Batches that the collector of a residency has not acknowledged"
    ),
    "edge_residency_shipping_ok": Metric("gauge", ("residency",), "0 while shipping to its collector has stopped"),
    "edge_table_rows": Metric("gauge", ("table",), "Rows in use"),
    "edge_table_capacity": Metric("gauge", ("table",), "Rows that there are"),
    "edge_table_full_total": Metric("counter", ("table",), "Times a table had no row to give"),
    "edge_issuer_keys_age_seconds": Metric("gauge", ("issuer",), "Since the keys of a token issuer were last fetched"),
    "edge_acme_failures": Metric("gauge", ("name",), "Failed attempts in a row to renew a certificate, by its file"),
    "edge_tls_expiry_seconds": Metric("gauge", ("name",), "Until a certificate expires, by its file"),
    "edge_config_reloads_total": Metric("counter", ("result",), "Reloads: ok, unchanged, refused or failed"),
    "edge_worker_restarts_total": Metric("counter", (), "Workers started anew after one died"),
    "edge_worker_resident_bytes": Metric("gauge", ("worker",), "Memory of a worker that is resident"),
    "edge_worker_open_descriptors": Metric("gauge", ("worker",), "Descriptors that a worker has open"),
    "edge_worker_connections": Metric("gauge", ("worker",), "Connections of clients that a worker serves"),
    "edge_descriptor_limit": Metric("gauge", (), "Descriptors that each process of the edge may have open"),
    "edge_config_ok": Metric("gauge", (), "1 while the configuration last offered is the one that serves"),
}  # fmt: skip
