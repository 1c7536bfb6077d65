"""Traces of whole edges at a receiver of OTLP: over HTTP and gRPC, through regions, reloads and faults."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector
from tests.support.receivers import Receiver

PATH = "/v1/traces"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
OPEN = [{"name": "all", "path": "/*", "upstream": "api", "auth": "none"}]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def tracing(receiver: Receiver, **settings: Any) -> dict[str, Any]:
    return {"endpoint": f"http://{HOST}:{receiver.port}", "sample": "100%", **settings}


def list_spans(requests: list[ExportTraceServiceRequest]) -> list[tuple[dict[str, str], Any]]:
    """Return the spans of requests, each with the attributes of its resource."""
    return [
        ({attribute.key: attribute.value.string_value for attribute in of_resource.resource.attributes}, span)
        for request in requests
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def received(receiver: Receiver) -> list[tuple[dict[str, str], Any]]:
    """Return the spans that a receiver got over HTTP."""
    return list_spans([ExportTraceServiceRequest.FromString(hook.body) for hook in receiver.on(PATH)])


def exported(edge: Edge) -> float:
    """Return the number of spans that a receiver has accepted, from the edge's metrics."""
    return total(edge.metrics(), "edge_trace_spans_exported_total")


def test_a_request_through_two_regions_is_one_trace(upstream: Upstream, tmp_path: Path, receiver: Receiver) -> None:
    settings = {"routes": OPEN, "workers": 1}
    with ExitStack() as ends:
        far = ends.enter_context(
            closing(
                Edge(
                    tmp_path / "far",
                    upstream.port,
                    region="us-test",
                    trusted_proxies=[HOST],
                    tracing=tracing(
                        receiver, sample="0%", resource_attributes={"deployment.environment.name": "tests"}
                    ),
                    **settings,
                )
            )
        )
        near = ends.enter_context(
            closing(
                Edge(
                    tmp_path / "near",
                    far.start().port,
                    tracing=tracing(receiver, headers={"x-team": "edge"}),
                    **settings,
                )
            )
        )
        assert near.start().ask("/orders?token=hush").status == 200
        until(lambda: len(received(receiver)) >= 6, "both edges have exported their spans")
        spans = received(receiver)
    assert len(spans) == 6
    assert len({span.trace_id for _, span in spans}) == 1
    by_region: dict[str, dict[str, Any]] = {}
    for resource, span in spans:
        by_region.setdefault(resource["edgeproxy.region"], {})[span.name] = span
        assert resource["service.name"] == "edgeproxy"
    here, there = by_region["eu-test"], by_region["us-test"]
    assert set(here) == set(there) == {"GET /*", "limit decision", "GET"}
    chain = [b"", here["GET /*"].span_id, here["GET"].span_id, there["GET /*"].span_id]
    asked = [here["GET /*"], here["GET"], there["GET /*"], there["GET"]]
    assert [span.parent_span_id for span in asked] == chain
    starts = [span.start_time_unix_nano for span in asked]
    assert starts == sorted(starts)
    assert {resource.get("deployment.environment.name", "") for resource, _ in spans} == {"", "tests"}
    hooks = receiver.on(PATH)
    assert {hook.fields["content-type"] for hook in hooks} == {"application/x-protobuf"}
    assert "edge" in {hook.fields.get("x-team") for hook in hooks}
    assert not any(b"hush" in hook.body for hook in hooks)


def test_trace_export_retries_failures_drops_refusals_and_delays_no_request(
    start_edge: StartEdge, receiver: Receiver
) -> None:
    receiver.statuses[PATH] = [503, 429]
    edge = start_edge(routes=OPEN, workers=1, tracing=tracing(receiver))
    assert edge.ask("/1").status == 200
    until(lambda: exported(edge) == 3, "the spans are accepted at the third attempt")
    assert len(receiver.on(PATH)) == 3
    assert len({hook.body for hook in receiver.on(PATH)}) == 1
    receiver.statuses[PATH] = [400]
    assert edge.ask("/2").status == 200
    until(
        lambda: total(edge.metrics(), "edge_trace_spans_dropped_total", reason="refused") == 3,
        "the refused spans are dropped",
    )
    # An answer without an end, and none at all.
    receiver.statuses[PATH] = [200]
    assert edge.ask("/3").status == 200
    until(lambda: exported(edge) == 6, "as much of its answer is read as any has")
    receiver.held.add(PATH)
    held = len(receiver.on(PATH))
    for number in range(20):
        assert edge.ask(f"/{number}").status == 200
    until(lambda: len(receiver.on(PATH)) > held, "the receiver has a request and does not answer")
    assert edge.ask("/").status == 200
    assert exported(edge) == 6


def test_spans_recorded_before_a_drain_and_a_reload_arrive(start_edge: StartEdge, receiver: Receiver) -> None:
    with Receiver() as other:
        edge = start_edge(routes=OPEN, workers=2, tracing=tracing(receiver))
        for _ in range(10):
            assert edge.ask("/before").status == 200
        edge.reload(tracing=tracing(other, service_name="renamed"))
        for _ in range(10):
            assert edge.ask("/after").status == 200
        edge.end()
        spans = received(receiver) + received(other)
        assert len(spans) == 60
        assert {resource["service.name"] for resource, span in received(other)} == {"renamed"}
        paths = [
            attribute.value.string_value
            for _, span in spans
            for attribute in span.attributes
            if attribute.key == "url.path"
        ]
        assert sorted(paths) == ["/after"] * 10 + ["/before"] * 10


class Service(TraceServiceServicer):  # type: ignore[misc]
    """Accepts spans over gRPC, but refuses the first request."""

    def __init__(self) -> None:
        self.got: list[ExportTraceServiceRequest] = []
        self.metadata: dict[str, str] = {}
        self.refuses = 1

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        self.metadata = dict(context.invocation_metadata())
        if self.refuses:
            self.refuses -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        self.got.append(request)
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = 1
        return response


def test_spans_go_over_grpc_too(start_edge: StartEdge) -> None:
    service = Service()
    server = grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(service, server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        settings = {
            "endpoint": f"http://{HOST}:{port}",
            "protocol": "grpc",
            "sample": "100%",
            "headers": {"X-Team": "edge"},
        }
        edge = start_edge(routes=OPEN, workers=1, tracing=settings)
        assert edge.ask("/").status == 200
        until(lambda: exported(edge) == 2, "all but the one that it has rejected are accepted")
        assert total(edge.metrics(), "edge_trace_spans_dropped_total", reason="refused") == 1
    finally:
        server.stop(None)
    assert [span.name for _, span in list_spans(service.got)] == ["GET /*", "limit decision", "GET"]
    assert service.metadata["x-team"] == "edge"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_collector_traces_requests_jobs_and_calls_without_personal_data(
    start_collector: StartCollector, receiver: Receiver
) -> None:
    collector = start_collector(
        tracing=tracing(receiver, service_name="collector"),
    )
    sent = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01", "Authorization": f"Bearer {ADMIN}"}
    fields = {**sent, "Content-Type": "application/json"}
    body = b'{"name": "planted", "tier": "basic", "metadata": {"person": "Ada Lovelace"}}'
    assert ask(collector.port, "/v1/customers", method="POST", fields=fields, body=body).status == 201
    assert ask(collector.port, "/v1/customers/planted?dry_run=hush", fields=sent).status == 400
    assert ask(collector.port, "/v1/nothing/planted", fields=sent).status == 404
    expected = {"POST /v1/customers", "GET /v1/customers/{customer}", "GET"}

    def names() -> set[str]:
        return {span.name for _, span in received(receiver)}

    until(lambda: expected <= names(), "the requests are exported")
    until(lambda: any(name.startswith("job ") for name in names()), "jobs are exported")
    for resource, span in received(receiver):
        assert resource["service.name"] == "collector"
        assert not [text for text in ("planted", "Ada", "hush") if text in str(span)]
        assert (span.trace_id.hex() == TRACE_ID) is (span.name in expected)
    metrics = ask(collector.port, "/metrics").body.decode()
    assert re.search(r"^collector_trace_spans_exported_total [1-9]", metrics, re.MULTILINE)


def test_a_bucket_of_latency_names_a_trace_that_was_in_it(start_edge: StartEdge, receiver: Receiver) -> None:
    edge = start_edge(routes=OPEN, workers=1, tracing=tracing(receiver))
    assert edge.ask("/orders").status == 200

    def scrape(accept: str) -> Answer:
        return ask(edge.admin, "/metrics", fields={"Accept": accept})

    def list_exemplars() -> list[Any]:
        answer = scrape(OPENMETRICS)
        if not answer.all("content-type")[0].startswith("application/openmetrics-text"):
            return []  # There is none yet.
        families = text_string_to_metric_families(answer.body.decode())
        return [sample for family in families for sample in family.samples if sample.exemplar is not None]

    until(lambda: bool(list_exemplars()), "there is one")
    (sample,) = list_exemplars()
    assert (sample.name, sample.labels["route"]) == ("edge_request_seconds_bucket", "all")
    assert sample.exemplar.value <= float(sample.labels["le"])
    until(lambda: bool(received(receiver)), "the spans are exported")
    assert sample.exemplar.labels == {"trace_id": received(receiver)[0][1].trace_id.hex()}
    plain = scrape("text/plain")
    assert plain.all("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]
    assert b"trace_id" not in plain.body
