"""gRPC through the edge: its own client and server, of grpcio, on either side."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until
from tests.edge.proxy.authority import Authority

KEYED = (("x-api-key", key_of(UNLIMITED)),)


class Echo(grpc.GenericRpcHandler):
    """A service of raw bytes."""

    def __init__(self) -> None:
        self.peers: set[str] = set()
        self.metadata: dict[str, Any] = {}
        self.cancelled = threading.Event()
        self.gate = threading.Event()

    def service(self, details: Any) -> Any:
        """Return the handler of a call's method, or None if there is no such method."""
        name = details.method.removeprefix("/test.Echo/")
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self._answer),
            "Many": grpc.unary_stream_rpc_method_handler(self._answer_often),
            "Join": grpc.stream_unary_rpc_method_handler(self._join),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self._wait),
        }.get(name)

    def _answer(self, request: bytes, context: Any) -> bytes:
        self.peers.add(context.peer())
        self.metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-begin", "1"),))
        context.set_trailing_metadata((("x-end", "2"), ("sum-bin", b"\0\xff")))
        return request

    def _answer_often(self, request: bytes, context: Any) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def _join(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b" ".join(requests)

    def _chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def _fail(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing of the name ‘x’")
        raise AssertionError

    def _wait(self, request: bytes, context: Any) -> bytes:
        context.add_callback(self.cancelled.set)
        self.gate.wait(20)
        return b""


class Server:
    """A server of the service, with gRPC's health service beside it."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.echo = Echo()
        self.grpc = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        self.grpc.add_generic_rpc_handlers((self.echo,))
        self.health = health.HealthServicer()
        self.health.set("test.Echo", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.grpc)
        address = f"{HOST}:{port}"
        if credentials is None:
            self.port = self.grpc.add_insecure_port(address)
        else:
            self.port = self.grpc.add_secure_port(address, credentials)
        self.grpc.start()

    def close(self) -> None:
        """End it at once."""
        self.echo.gate.set()
        self.grpc.stop(0).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server()) as server:
        yield server


@pytest.fixture
def edge(tmp_path: Path, server: Server) -> Iterator[Edge]:
    with closing(Edge(tmp_path / "edge", server.port, workers=1)) as edge:
        edge.settings["listen"] = {"address": f"{HOST}:{edge.port}", "http2": True}
        edge.settings["upstreams"]["api"] |= {"protocol": "h2c", "timeouts": {"response_head": "10s"}}
        edge.settings["routes"] = [{"name": "echo", "path": "/test.Echo/*", "upstream": "api"}]
        edge.settings["routes"].append({"name": "health", "path": "/grpc.health.v1.Health/*", "upstream": "api"})
        yield edge


@pytest.fixture
def channel(edge: Edge) -> Iterator[grpc.Channel]:
    edge.start(**people(acme=["3/min"]))
    options = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1))
    with grpc.insecure_channel(f"{HOST}:{edge.port}", options=options) as channel:
        yield channel


def status_of(call: Any) -> Any:
    """The error of a call that fails."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value


def ask_for_code(unary: Any) -> Any:
    """The status of one call."""
    call = unary.future(b"", metadata=KEYED)
    return call.code()


def test_calls_of_all_four_kinds_pass_with_their_metadata(channel: grpc.Channel, edge: Edge, server: Server) -> None:
    answer, call = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", metadata=(*KEYED, ("x-own", "1")))
    assert answer == b"hello"
    assert ("x-begin", "1") in tuple(call.initial_metadata())
    assert {("x-end", "2"), ("sum-bin", b"\0\xff")} <= set(call.trailing_metadata())
    assert server.echo.metadata["x-customer-id"] == UNLIMITED
    assert server.echo.metadata["x-own"] == "1"
    assert "x-api-key" not in server.echo.metadata
    many = channel.unary_stream("/test.Echo/Many")(b"500", metadata=KEYED)
    assert list(many) == [b"%d" % number for number in range(500)]
    words = iter([b"a", b"b", b"c"])
    assert channel.stream_unary("/test.Echo/Join")(words, metadata=KEYED) == b"a b c"
    assert edge.usage() == {UNLIMITED: 3}
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="test.Echo"), metadata=KEYED)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_each_side_of_a_stream_hears_the_other_while_it_speaks(channel: grpc.Channel) -> None:
    said: list[bytes] = []
    more = threading.Semaphore(0)

    def speak() -> Iterator[bytes]:
        for number in range(50):
            yield b"word %d" % number
            assert more.acquire(timeout=10)

    for answer in channel.stream_stream("/test.Echo/Chat")(speak(), metadata=KEYED, timeout=20):
        said.append(answer)
        more.release()
    assert said == [b"WORD %d" % number for number in range(50)]


def test_the_status_of_a_service_passes(channel: grpc.Channel) -> None:
    error = status_of(lambda: channel.unary_unary("/test.Echo/Fail")(b"", metadata=KEYED))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing of the name ‘x’")
    error = status_of(lambda: channel.unary_unary("/test.Echo/Nothing")(b"", metadata=KEYED))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_large_messages_and_many_calls_share_one_connection(channel: grpc.Channel, server: Server) -> None:
    unary = channel.unary_unary("/test.Echo/Unary")
    large = bytes(range(256)) * 12_000
    assert unary(large, metadata=KEYED) == large
    calls = [unary.future(b"%d" % number * 3000, metadata=KEYED) for number in range(80)]
    assert [call.result(20) for call in calls] == [b"%d" % number * 3000 for number in range(80)]
    assert len(server.echo.peers) == 1


def test_refusal_of_the_edge_is_a_grpc_status(channel: grpc.Channel, edge: Edge, server: Server) -> None:
    unary = channel.unary_unary("/test.Echo/Unary")
    error = status_of(lambda: unary(b"", metadata=(("x-api-key", "nobody's"),)))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert error.details()
    error = status_of(lambda: channel.unary_unary("/other.Service/Call")(b"", metadata=KEYED))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    acme = (("x-api-key", key_of("acme")),)
    for _ in range(3):
        unary(b"", metadata=acme)
    error = status_of(lambda: unary(b"", metadata=acme))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(error.trailing_metadata())["retry-after"]) > 0
    assert total(edge.metrics(), "edge_requests_total", code="429") == 1
    server.close()
    error = status_of(lambda: unary(b"", metadata=KEYED))
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_grpc_method_has_its_own_limits_and_meters(edge: Edge) -> None:
    """A method is a route; and messages are metered, of streams too."""
    unary = {"name": "unary", "path": "/test.Echo/Unary", "upstream": "api", "limits": [{"rate": "2/min"}]}
    edge.settings["routes"].insert(0, unary)
    edge.start(meters={"messages": {"count": "grpc_messages"}, "calls": {"count": "requests"}})
    with grpc.insecure_channel(f"{HOST}:{edge.port}") as channel:
        assert [ask_for_code(channel.unary_unary("/test.Echo/Unary")) for _ in range(4)] == [
            *[grpc.StatusCode.OK] * 2,
            *[grpc.StatusCode.RESOURCE_EXHAUSTED] * 2,
        ]
        large = bytes(100_000)
        chat = channel.stream_stream("/test.Echo/Chat", request_serializer=None)
        packed = {"metadata": KEYED, "compression": grpc.Compression.Gzip}
        assert list(chat(iter([b"a", large, b""]), **packed)) == [b"A", large, b""]
        assert len(list(channel.unary_stream("/test.Echo/Many")(b"30", metadata=KEYED))) == 30
        status_of(lambda: channel.unary_unary("/test.Echo/Fail")(b"", metadata=KEYED))
    assert edge.usage("calls") == {UNLIMITED: 5}
    assert edge.usage("messages") == {UNLIMITED: 2 * 2 + 2 * 3 + 31 + 1}


def test_cancelled_client_ends_the_call_at_the_service(channel: grpc.Channel, edge: Edge, server: Server) -> None:
    wait = channel.unary_unary("/test.Echo/Wait")
    began = time.monotonic()
    error = status_of(lambda: wait(b"", metadata=KEYED, timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 5
    assert server.echo.cancelled.wait(10)
    server.echo.cancelled.clear()
    call = wait.future(b"", metadata=KEYED)
    until(lambda: total(edge.metrics(), "edge_http2_streams_total") >= 2, "the call has begun")
    call.cancel()
    assert server.echo.cancelled.wait(10)


def test_grpc_calls_reach_a_restarted_service(channel: grpc.Channel, server: Server) -> None:
    unary = channel.unary_unary("/test.Echo/Unary")
    assert unary(b"1", metadata=KEYED) == b"1"
    server.grpc.stop(5).wait()
    with closing(Server(server.port)) as again:
        assert [unary(b"%d" % n, metadata=KEYED) for n in range(20)] == [b"%d" % n for n in range(20)]
        assert again.echo.peers


def test_grpc_passes_with_tls_on_both_sides(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (cert, key), (own_cert, own_key) = authority.issues("localhost", HOST), authority.issues("service.test", HOST)
    credentials = grpc.ssl_server_credentials([(own_key.read_bytes(), own_cert.read_bytes())])
    edge.settings["listen"]["tls"] = {"cert": str(cert), "key": str(key)}
    with closing(Server(credentials=credentials)) as server:
        api = {"endpoints": [f"https://{HOST}:{server.port}"], "protocol": "h2", "tls": {"ca": str(authority.file)}}
        # With another verdict there would be no calls.
        edge.start(upstreams={"api": api | {"health": {"grpc": ""}}})
        believed = grpc.ssl_channel_credentials(authority.file.read_bytes())
        with grpc.secure_channel(f"localhost:{edge.port}", believed) as channel:
            unary = channel.unary_unary("/test.Echo/Unary")
            assert [unary(b"%d" % n, metadata=KEYED) for n in range(10)] == [b"%d" % n for n in range(10)]
            assert list(channel.unary_stream("/test.Echo/Many")(b"3", metadata=KEYED)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("name", "why"), [("test.Echo", "NOT_SERVING"), ("other", "its health service knows no other")]
)
def test_a_service_that_is_not_serving_gets_no_calls(edge: Edge, server: Server, name: str, why: str) -> None:
    # The interval is the time limit of a probe too. A busy service that missed it would be down for another reason.
    edge.settings["upstreams"]["api"]["health"] = {"grpc": "test.Echo", "every": "2s"}
    edge.start()
    with grpc.insecure_channel(f"{HOST}:{edge.port}") as channel:
        unary = channel.unary_unary("/test.Echo/Unary")
        assert unary(b"1", metadata=KEYED) == b"1"
        if name == "test.Echo":
            server.health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        else:
            edge.settings["upstreams"]["api"]["health"]["grpc"] = name
            assert edge.reload().status == 200
        until(lambda: why in edge.output, "the edge notices")
        until(lambda: ask_for_code(unary) == grpc.StatusCode.UNAVAILABLE, "its workers are told")
