"""Export of spans to a receiver: retries, dropped spans, and bounded waiting."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from edgeproxy.config.tracing import Tracing
from edgeproxy.config.units import Rate
from edgeproxy.tracing import exporter as exporters
from edgeproxy.tracing.exporter import BATCH_BYTES_MAX, QUEUE_BYTES_MAX, SpanExporter
from edgeproxy.tracing.sampling import ParentBudget
from edgeproxy.tracing.spans import INTERNAL, SpanBatch
from edgeproxy.tracing.transport import Outcome, interpret_answer
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import STEP
from tests.support.receivers import Receiver

PATH = "/v1/traces"
REJECTED = ExportTraceServiceResponse(partial_success={"rejected_spans": 2})
NOWHERE = f"http://{HOST}:1"


def run(what: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await what

    asyncio.run(bounded())


def encode(spans: int, name: str = "one") -> bytes:
    """Return an encoded batch of `spans` spans, as a worker passes it on."""
    batch = SpanBatch(b"0af7651916cd43dd8448eb211c80319c")
    for number in range(spans):
        batch.add(b"%016x" % (number + 1), b"", name, INTERNAL, (1, 2))
    return batch.encode()


@pytest.mark.parametrize(
    ("status", "fields", "content", "outcome"),
    [
        (200, {}, b"", Outcome(True)),
        (202, {}, REJECTED.SerializeToString(), Outcome(True, rejected=2)),
        (
            200,
            {},
            ExportTraceServiceResponse(partial_success={"rejected_spans": -9}).SerializeToString(),
            Outcome(True),
        ),
        (200, {}, b"\xff no message", Outcome(True)),
        (307, {"Location": "http://elsewhere"}, b"", Outcome(False, False, "it answers 307 (Temporary Redirect)")),
        (400, {}, b"", Outcome(False, False, "it answers 400 (Bad Request)")),
        (429, {"Retry-After": "7"}, b"", Outcome(False, True, "it answers 429 (Too Many Requests)", 7.0)),
        (503, {"Retry-After": "soon"}, b"", Outcome(False, True, "it answers 503 (Service Unavailable)")),
        (599, {}, b"", Outcome(False, False, "it answers 599 (no status that is known)")),
    ],
)
def test_answer_decides_the_outcome_of_an_export(
    status: int, fields: dict[str, str], content: bytes, outcome: Outcome
) -> None:
    assert interpret_answer(status, fields, content) == outcome


def test_spans_beyond_the_queue_bound_are_dropped() -> None:
    async def fill() -> None:
        exporter = SpanExporter(Tracing(endpoint=NOWHERE), {})
        piece = bytes(QUEUE_BYTES_MAX // 4)
        for _ in range(6):
            exporter.add(piece, 10)
        assert exporter.dropped["queue_full"] == 20
        await exporter.end()
        assert exporter.dropped["ended"] == 40
        assert exporter.exported == 0

    run(fill())


def test_spans_without_a_receiver_are_dropped() -> None:
    async def switch_off() -> None:
        exporter = SpanExporter(Tracing(endpoint=NOWHERE), {})
        exporter.begin()
        exporter.add(encode(3), 3)
        await exporter.follow(None)
        exporter.add(encode(2), 2)
        assert +exporter.dropped == {"ended": 5}
        await exporter.end()

    run(switch_off())


def test_unanswered_export_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "RETRY_SECONDS", 0.0)

    async def give_up() -> None:
        exporter = SpanExporter(Tracing(endpoint=NOWHERE), {})
        exporter.begin()
        exporter.add(encode(3), 3)
        while not exporter.dropped["unanswered"]:  # noqa: ASYNC110 - it sends no event
            await asyncio.sleep(STEP)
        assert +exporter.dropped == {"unanswered": 3}
        await exporter.end()

    run(give_up())


def test_trace_exporter_splits_requests_and_flushes_at_the_end() -> None:
    async def export(receiver: Receiver) -> None:
        exporter = SpanExporter(Tracing(endpoint=f"http://{HOST}:{receiver.port}"), {"edgeproxy.region": "here"})
        exporter.begin()
        for _ in range(5):
            exporter.add(encode(100, "x" * (BATCH_BYTES_MAX // 200)), 100)
        await exporter.end()
        assert exporter.exported == 500
        assert not exporter.dropped.total()

    with Receiver() as receiver:
        run(export(receiver))
        bodies = [hook.body for hook in receiver.on(PATH)]
    assert max(map(len, bodies)) < BATCH_BYTES_MAX + 1000
    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    assert sum(len(request.resource_spans[0].scope_spans[0].spans) for request in requests) == 500


def test_a_receiver_that_is_redirected_gets_nothing_elsewhere() -> None:
    async def export(receiver: Receiver, other: Receiver) -> None:
        exporter = SpanExporter(Tracing(endpoint=f"http://{HOST}:{receiver.port}"), {})
        receiver.statuses[PATH] = [307]
        receiver.fields = {"Location": f"http://{HOST}:{other.port}{PATH}"}
        exporter.begin()
        exporter.add(encode(1), 1)
        await exporter.end()
        assert +exporter.dropped == {"refused": 1}

    with Receiver() as receiver, Receiver() as other:
        run(export(receiver, other))
        assert other.got == []


def test_a_budget_is_a_rate_with_its_count_at_once() -> None:
    budget = ParentBudget(Rate(3, 60.0))
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(119.0), budget.take(120.5), budget.take(121.0)] == [False, True, False]
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]
