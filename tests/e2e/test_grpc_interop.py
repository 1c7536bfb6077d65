"""gRPC's interoperability cases through an edge, with grpcio's client and server.

The tests cover all cases of doc/interop-test-descriptions.md without credentials, compression probes or Google servers.
"""

import queue
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST
from tests.support.grpc_interop import INITIAL, TRAILING, InteropServer, create, create_payload, open_method

KEYED = (("x-api-key", key_of(UNLIMITED)),)
REQUEST_SIZES = (27182, 8, 1828, 45904)
RESPONSE_SIZES = (31415, 9, 2653, 58979)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder: Path = tmp_path_factory.mktemp("interop")
    with closing(InteropServer()) as server, closing(Edge(folder / "edge", server.port, workers=1)) as edge:
        edge.settings["upstreams"]["api"] |= {"protocol": "h2c", "timeouts": {"response_head": "10s"}}
        edge.settings["routes"] = [{"name": "all", "path": "/*", "upstream": "api"}]
        edge.start(meters={"messages": {"count": "grpc_messages"}, "requests": {"count": "requests"}})
        yield edge


@pytest.fixture
def channel(edge: Edge) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"{HOST}:{edge.port}") as channel:
        yield channel


def create_output(*sizes: int, interval_us: int = 0, payload: int = 0) -> Any:
    parameters = [create("ResponseParameters", size=size, interval_us=interval_us) for size in sizes]
    body = create_payload(payload)
    return create("StreamingOutputCallRequest", response_parameters=parameters, payload=body)


def raised(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


class Spoken:
    """A stream of requests that a test writes one by one."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)

    def say(self, request: Any) -> None:
        self._queue.put(request)

    def end(self) -> None:
        self._queue.put(None)


def test_empty_unary(channel: grpc.Channel) -> None:
    assert open_method(channel, "EmptyCall")(create("Empty"), metadata=KEYED, timeout=20) == create("Empty")


def test_large_unary(channel: grpc.Channel) -> None:
    request = create("SimpleRequest", response_size=314159, payload=create_payload(271828))
    answer = open_method(channel, "UnaryCall")(request, metadata=KEYED, timeout=20)
    assert answer.payload.body == bytes(314159)


def test_client_streaming(channel: grpc.Channel) -> None:
    requests = (create("StreamingInputCallRequest", payload=create_payload(size)) for size in REQUEST_SIZES)
    answer = open_method(channel, "StreamingInputCall")(requests, metadata=KEYED, timeout=20)
    assert answer.aggregated_payload_size == 74922


def test_server_streaming(channel: grpc.Channel) -> None:
    answers = open_method(channel, "StreamingOutputCall")(create_output(*RESPONSE_SIZES), metadata=KEYED, timeout=20)
    assert [len(answer.payload.body) for answer in answers] == list(RESPONSE_SIZES)


def test_ping_pong(channel: grpc.Channel) -> None:
    spoken = Spoken()
    answers = open_method(channel, "FullDuplexCall")(iter(spoken), metadata=KEYED, timeout=20)
    for size, payload in zip(RESPONSE_SIZES, REQUEST_SIZES, strict=True):
        spoken.say(create_output(size, payload=payload))
        assert len(next(answers).payload.body) == size
    spoken.end()
    assert list(answers) == []


def test_empty_stream(channel: grpc.Channel) -> None:
    assert list(open_method(channel, "FullDuplexCall")(iter(()), metadata=KEYED, timeout=20)) == []


def test_cancel_after_begin(channel: grpc.Channel) -> None:
    spoken = Spoken()
    call = open_method(channel, "StreamingInputCall").future(iter(spoken), metadata=KEYED, timeout=20)
    call.cancel()
    spoken.end()
    assert call.cancelled()
    assert call.code() == grpc.StatusCode.CANCELLED


def test_cancel_after_first_response(channel: grpc.Channel) -> None:
    spoken = Spoken()
    answers = open_method(channel, "FullDuplexCall")(iter(spoken), metadata=KEYED, timeout=20)
    spoken.say(create_output(31415, payload=27182))
    assert len(next(answers).payload.body) == 31415
    answers.cancel()
    spoken.end()
    assert raised(lambda: next(answers)).code() == grpc.StatusCode.CANCELLED


def test_timeout_on_sleeping_server(channel: grpc.Channel) -> None:
    spoken = Spoken()
    answers = open_method(channel, "FullDuplexCall")(iter(spoken), metadata=KEYED, timeout=0.001)
    spoken.say(create_output(1, interval_us=100_000, payload=27182))
    spoken.end()
    assert raised(lambda: list(answers)).code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_custom_metadata(channel: grpc.Channel) -> None:
    own = (*KEYED, (INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab"))
    request = create("SimpleRequest", response_size=314159, payload=create_payload(271828))
    _, unary = open_method(channel, "UnaryCall").with_call(request, metadata=own, timeout=20)
    duplex = open_method(channel, "FullDuplexCall")(iter([create_output(314159)]), metadata=own, timeout=20)
    assert len(list(duplex)) == 1
    for call in (unary, duplex):
        assert dict(call.initial_metadata())[INITIAL] == "test_initial_metadata_value"
        assert dict(call.trailing_metadata())[TRAILING] == b"\xab\xab\xab"


@pytest.mark.parametrize(
    "message",
    ["test status message", "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"],
    ids=["status_code_and_message", "special_status_message"],
)
def test_status_code_and_message(channel: grpc.Channel, message: str) -> None:
    status = create("EchoStatus", code=2, message=message)
    unary = create("SimpleRequest", response_status=status)
    error = raised(lambda: open_method(channel, "UnaryCall")(unary, metadata=KEYED, timeout=20))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, message)
    spoken = iter([create("StreamingOutputCallRequest", response_status=status)])
    error = raised(lambda: list(open_method(channel, "FullDuplexCall")(iter(spoken), metadata=KEYED, timeout=20)))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, message)


@pytest.mark.parametrize("service", ["grpc.testing.TestService", "grpc.testing.UnimplementedService"])
def test_unimplemented_method_and_service(channel: grpc.Channel, service: str) -> None:
    method = open_method(channel, "UnimplementedCall", service)
    error = raised(lambda: method(create("Empty"), metadata=KEYED, timeout=20))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
