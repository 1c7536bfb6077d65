"""Traces of a process: the recorded ones, and the contents of each span."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.api.app import trace_request
from edgeproxy.collector.webhooks.http_post import post_body
from edgeproxy.config.tracing import Tracing
from edgeproxy.tracing.exporter import SpanExporter
from edgeproxy.tracing.recorder import SpanRecorder, trace, trace_call
from loadtest.testbed.ports import HOST
from tests.support.receivers import Receiver

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = f"00-{TRACE}-{PARENT}-01"


def record(settings: dict[str, Any] | None, work: Any, monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """Do some work, and return the spans that the exporter was handed."""
    spans: list[Span] = []
    monkeypatch.setattr(SpanExporter, "add", lambda _, data, count: spans.extend(ScopeSpans.FromString(data).spans))

    async def run() -> None:
        given = None if settings is None else {"endpoint": "http://127.0.0.1:1", **settings}
        recorder = SpanRecorder(None if given is None else Tracing.model_validate(given))
        recorder.begin()
        await work()
        await recorder.end()

    asyncio.run(run())
    return spans


@pytest.mark.parametrize(
    ("settings", "traceparent", "recorded"),
    [
        (None, SENT, 0),
        ({"sample": "0%"}, "", 0),
        ({"sample": "100%"}, "", 20),
        ({"sample": "0%"}, SENT, 10),
        ({"sample": "0%", "parent": "ignore"}, SENT, 0),
        ({"sample": "100%", "parent": "ignore"}, SENT[:-2] + "00", 20),
        ({"sample": "100%"}, SENT[:-2] + "00", 0),
        ({"sample": "100%", "parent_rate": "1/h"}, SENT, 20),
        ({"sample": "0%", "parent_rate": "1/h"}, SENT, 1),
        ({"sample": "100%"}, f"00-{'0' * 32}-{PARENT}-00", 20),
        ({"sample": "100%"}, "00-zz", 20),
    ],
)
def test_a_trace_follows_its_sender_within_a_rate_and_is_drawn_otherwise(
    settings: dict[str, Any] | None, traceparent: str, recorded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        for _ in range(20):
            with trace("GET /v1/keys", of_request=True, traceparent=traceparent):
                pass

    assert len(record(settings, work, monkeypatch)) == recorded


def test_call_span_has_its_parent_even_if_it_ends_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async def call() -> None:
            with trace_call("POST", {"http.request.method": "POST"}):
                await asyncio.sleep(0)

        with trace("POST /v1/events", of_request=True, traceparent=SENT) as span:
            assert span is not None
            span.attributes["http.response.status_code"] = 202
            late = Tasks().start("call", call())
        await late
        with trace_call("POST", {}) as nothing:
            assert nothing is None, "there is no span around it"
        with pytest.raises(OSError, match="away"), trace("job alerts", of_request=False):
            raise OSError("away")

    request, call, job = record({"sample": "100%"}, work, monkeypatch)
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert (call.trace_id, call.parent_span_id) == (request.trace_id, request.span_id)
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert request.attributes[0].value.int_value == 202
    assert (job.name, job.status.code) == ("job alerts", Status.STATUS_CODE_ERROR)
    assert "away" not in str(job), "an error message may contain personal data"
    assert job.trace_id != request.trace_id


def test_a_redirection_is_no_failure_and_an_answer_of_5xx_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPSeeOther("/elsewhere")

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async def work() -> None:
        application = web.Application(middlewares=[trace_request])
        application.router.add_get("/old/{name}", redirect)
        application.router.add_get("/busy", fail)
        async with TestClient(TestServer(application)) as client:
            for path in ("/old/acme", "/busy"):
                await client.get(path, allow_redirects=False)

    old, busy = record({"sample": "100%"}, work, monkeypatch)
    assert (old.name, old.status.code) == ("GET /old/{name}", Status.STATUS_CODE_UNSET)
    assert (busy.name, busy.status.code) == ("GET /busy", Status.STATUS_CODE_ERROR)
    codes = [
        attribute.value.int_value
        for span in (old, busy)
        for attribute in span.attributes
        if "status_code" in attribute.key
    ]
    assert codes == [303, 503]


def test_webhook_attempt_is_a_span_without_a_traceparent_for_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as receiver:
        receiver.statuses["/hook"] = [503]

        async def work() -> None:
            with trace("job webhooks", of_request=False):
                for _ in range(2):
                    await post_body(f"http://{HOST}:{receiver.port}/hook", b"{}", {}, lambda _: None)

        failed, sent, job = record({"sample": "100%"}, work, monkeypatch)
        assert not [hook for hook in receiver.got if "traceparent" in hook.fields]
    assert (failed.name, failed.kind, failed.parent_span_id) == ("POST", Span.SPAN_KIND_CLIENT, job.span_id)
    assert [each.status.code for each in (failed, sent)] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
