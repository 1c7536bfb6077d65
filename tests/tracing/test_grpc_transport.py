"""OTLP over gRPC to a receiver with hostile answers."""

import asyncio

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edgeproxy.config.tracing import Tracing
from edgeproxy.tracing.grpc_transport import GrpcTransport
from edgeproxy.tracing.transport import ANSWER_BYTES_MAX, Outcome


class Receiver(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def respond(request: bytes, context: object) -> bytes:
            return self._answer

        return grpc.unary_unary_rpc_method_handler(respond)


async def export(answer: bytes) -> Outcome:
    """Send a request to a receiver, and return the outcome."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Receiver(answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(Tracing(endpoint=f"http://127.0.0.1:{port}", timeout=5.0, protocol="grpc"))
    try:
        return await transport.send(ExportTraceServiceRequest())
    finally:
        await transport.close()
        await server.stop(None)


@pytest.mark.parametrize(
    "answer",
    [b"\xff" * 100, bytes(60 << 10), b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x7f"],
    ids=["bytes", "zeros", "a number"],
)
def test_answer_that_is_no_message_counts_as_accepted(answer: bytes) -> None:
    assert asyncio.run(export(answer)) == Outcome(True)


def test_answer_beyond_its_bound_is_a_failure_with_a_reason() -> None:
    outcome = asyncio.run(export(bytes(ANSWER_BYTES_MAX + 1)))
    assert not outcome.is_accepted
    assert "larger than max" in outcome.why
