"""The table of bounds for clients and upstreams: each bound is tested just below and just above, over each protocol."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest
from h2.errors import ErrorCodes

from edgeproxy.bounds.bound import BOTH, HTTP1, HTTP2, Bound, Protocol, Side
from edgeproxy.bounds.table import BOUNDS
from edgeproxy.edge.http1.chunked import LINE_BYTES_FREE
from tests.edge.http2.peer import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    block,
    frame,
    settings,
)
from tests.support.http2_server import Http2Server
from tests.support.http2_wire import Http2Wire, http2
from tests.support.transcript import Edge, get, head, ok
from tests.support.wire import Cut, Message, Wire

LIMITS = {"head": 4 << 10, "fields": 20, "body": 8 << 10}
UPSTREAM_HEAD = 16 << 10
"""The settings of the test bed, in the units of the table."""

Fields = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """A request of either protocol."""

    path: str = "/public/x"
    fields: Fields = ()
    body: bytes | None = None
    trailers: Fields = ()
    wire_body: bytes = b""
    """A chunked body as bytes, for HTTP/1.1 only."""

    @property
    def method(self) -> str:
        return "GET" if self.body is None and not self.wire_body else "POST"

    def format_http1(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: edge.test", *map(": ".join, self.fields)]
        if self.method == "GET" or any(name == "content-length" for name, _ in self.fields):
            return head(*lines) + (self.body or b"")
        trailers = "".join(f"{name}: {value}\r\n" for name, value in self.trailers).encode()
        whole = self.body or b""
        body = self.wire_body or b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(whole), whole, trailers)
        return head(*lines, "Transfer-Encoding: chunked") + body

    async def send_http2(self, client: Http2Wire) -> int:
        number = await client.begins_request(self.method, self.path, *self.fields, ended=self.body is None)
        if self.body is not None:
            await client.sends_data(number, self.body, ended=not self.trailers)
        if self.trailers:
            client.protocol.send_headers(number, list(self.trailers), end_stream=True)
            await client.flushes()
        return number


LINES = b"GET /public/x HTTP/1.1\r\nHost: edge.test"
FEW = "\r\nHost: edge.test"


def request_of_head(size: int) -> Request:
    return Request(fields=(("x-a", "a" * (size - len(LINES) - len("\r\nx-a: "))),))


def request_of_target(size: int) -> Request:
    return Request("/public/" + "a" * (size - len("GET /public/ HTTP/1.1")))


def request_of_extensions(size: int) -> Request:
    """Return a request whose chunk extensions have `size` bytes beyond the free ones."""
    pieces = []
    while size:
        excess = min(size, 3000)
        pieces.append(b"1;%b\r\nx\r\n" % (b"a" * (excess + LINE_BYTES_FREE + 2 - len("1;"))))
        size -= excess
    return Request(wire_body=b"".join(pieces) + b"0\r\n\r\n")


CLIENT_CASES: dict[str, tuple[Callable[[int], Request], int]] = {
    # Beside a target of this length, Host must still fit into the head.
    "client target": (request_of_target, -len(FEW)),
    "client head": (request_of_head, 0),
    "client fields": (lambda count: Request(fields=(("x-a", "b"),) * (count - len(["Host"]))), 0),
    "client trailer bytes": (lambda size: Request(body=b"x", trailers=(("x-t", "a" * (size - len("x-t: "))),)), 0),
    "client trailer fields": (lambda count: Request(body=b"x", trailers=(("x-t", "b"),) * count), 0),
    "client edges on the way": (lambda count: Request(fields=(("via", "1.1 edgeproxy"),) * (count - 1)), 0),
    "client digits of a length": (
        lambda count: Request(fields=(("content-length", "5".zfill(count)),), body=b"hello"),
        0,
    ),
    "client body": (lambda size: Request(body=b"x" * size), 0),
    "client body of known length": (
        lambda size: Request(fields=(("content-length", str(size)),), body=b"x" * size),
        0,
    ),
    "client chunk line": (
        lambda size: Request(wire_body=b"1;%b\r\nx\r\n0\r\n\r\n" % (b"a" * (size - len("1;\r\n")))),
        0,
    ),
    "client chunk extensions": (request_of_extensions, 0),
}
"""By row: a function that returns the request at a bound, and an offset from the bound for a request that passes."""

OTHER_NAMES = {"client body of known length": "client body"}


def find_row(name: str) -> Bound:
    return BOUNDS[OTHER_NAMES.get(name, name)]


def get_number(row: Bound) -> int:
    """Return the number of a row in this test bed."""
    setting = (row.setting or "").rpartition(".")[2]
    number = UPSTREAM_HEAD if row.setting == "upstreams.NAME.head" else LIMITS.get(setting, row.number)
    assert number is not None
    return int(number)


def list_cases(cases: dict[str, Any]) -> list[Any]:
    pairs = [(name, protocol) for name in cases for protocol in find_row(name).protocols]
    return [pytest.param(name, protocol, id=f"{name}, {protocol.value}") for name, protocol in pairs]


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["limits"] = {"head": "4KiB", "fields": 20, "body": "8KiB"}
    edge.config["access_log"] = str(edge._folder / "access.log")
    edge.config["upstreams"]["api"].update(head="16KiB", eject={"errors": 1})
    return edge


async def find_log_line(edge: Edge, status: int, path: str) -> dict[str, Any]:
    """Wait for the access log line of the request that failed with this status, and return it."""
    file = edge._folder / "access.log"

    def find() -> list[dict[str, Any]]:
        lines = map(orjson.loads, file.read_bytes().splitlines()) if file.exists() else ()
        failed = [line for line in lines if line["status"] == status and "error" in line]
        return [line for line in failed if (line.get("path") or path).startswith(path)]

    await edge.until(find, f"a line of the log with {status}")
    return find()[-1]


def check_client_is_blamed(edge: Edge, answer: Message, line: dict[str, Any]) -> None:
    """Check that no upstream is named, counted or charged."""
    detail = orjson.loads(answer.body)["detail"]
    assert line["error"] == detail
    assert "the upstream" not in detail.lower()
    assert "Proxy-Status" not in answer
    assert edge.metrics("edge_upstream_errors_total") == {}
    assert edge.metrics("edge_upstream_ejections_total") == {}
    assert edge.endpoint().errors == 0


@pytest.mark.parametrize(("name", "protocol"), list_cases(CLIENT_CASES))
async def test_client_request_beyond_a_bound_is_refused(edge: Edge, name: str, protocol: Protocol) -> None:
    row, (create, less) = find_row(name), CLIENT_CASES[name]
    below, above = create(get_number(row) + less), create(get_number(row) + 1)
    edge.upstream.answers(lambda request: ok())
    answer = await (_walk_http1 if protocol is HTTP1 else _walk_http2)(edge, row, below, above)
    if answer is not None:
        assert row.status is not None
        assert answer.status == row.status
        check_client_is_blamed(edge, answer, await find_log_line(edge, row.status, ""))
    assert row.side is Side.CLIENT


async def _walk_http1(edge: Edge, row: Bound, below: Request, above: Request) -> Message:
    client = await edge.client()
    await client.sends(below.format_http1())
    assert (await client.gets_answer()).status == 200
    await client.sends(above.format_http1())
    answer = await client.gets_answer()
    if "close" in answer.all("Connection"):
        await client.gets_cut()
    else:
        await client.sends(get())
        assert (await client.gets_answer()).status == 200
    return answer


async def _walk_http2(edge: Edge, row: Bound, below: Request, above: Request) -> Message | None:
    """Send both requests. Return the second answer, or None if HTTP/2 requires a reset of its stream."""
    client = await http2(edge)
    held = await client.begins_request("POST", "/public/held", ended=False)
    assert (await client.answer_of(await below.send_http2(client))).status == 200
    number = await above.send_http2(client)
    if "PROTOCOL_ERROR" in row.effect:
        assert await client.reset_of(number) == ErrorCodes.PROTOCOL_ERROR
        answer = None
    else:
        answer = await client.answer_of(number)
    await client.sends_data(held, b"goes on", ended=True)
    assert (await client.answer_of(held)).status == 200, "another stream is served"
    assert (await client.asks()).status == 200, "the connection is served"
    return answer


# ---- upstreams


class Answer(NamedTuple):
    """An answer of either protocol."""

    fields: Fields = (("content-length", "0"),)
    interim: int = 0
    body: bytes | None = None
    """The body, if it comes in chunks."""
    trailers: Fields = ()
    raw: bytes = b""
    """A whole answer, or frames, as bytes."""

    def format_http1(self) -> bytes:
        if self.raw:
            return self.raw
        trailers = "".join(f"{name}: {value}\r\n" for name, value in self.trailers).encode()
        lines = [f"{name}: {value}" for name, value in self.fields]
        interim = head("HTTP/1.1 103 Early Hints") * self.interim
        if self.body is None:
            return interim + head("HTTP/1.1 200 OK", *lines)
        final = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
        return interim + final + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(self.body), self.body, trailers)

    async def send_http2(self, server: Http2Server, number: int) -> None:
        if self.raw:
            await server.wire.sends(self.raw.replace(NUMBER, number.to_bytes(4, "big")))
            return
        for _ in range(self.interim):
            await server.sends_head(number, 103)
        fields = self.fields if self.body is None else ()
        await server.sends_head(number, 200, *fields, ended=self.body is None)
        if self.body is not None:
            await server.sends_data(number, self.body)
            await server.sends_trailers(number, *self.trailers)


NUMBER = b"\0\0\x7f\x7f"
"""The stream in raw frames."""
UNKNOWN = 0xBB
"""An unknown frame type. Receivers ignore such frames (RFC 9113 section 5.5)."""
STREAM = int.from_bytes(NUMBER, "big")
OWN = {HTTP1: len("HTTP/1.1 200 OK\r\ncontent-length: 0"), HTTP2: len("HTTP/1.1 200 \r\ncontent-length: 0")}
CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
SERVED = frame(HEADERS, END_HEADERS | END_STREAM, STREAM, block([(b":status", b"200")]))


def answer_of_head(size: int, protocol: Protocol) -> Answer:
    value = "a" * (size - OWN[protocol] - len("\r\nx-a: "))
    return Answer((("content-length", "0"), ("x-a", value)))


def answer_of_block(factor: int, protocol: Protocol) -> Answer:
    """Return a field block of `factor` times `head`, which is just below or above the bound."""
    parts = [b"\x82" * 16384] * (factor * UPSTREAM_HEAD // 16384)
    first = block([(b":status", b"200")]).ljust(16384, b"\x82")
    middle = b"".join(frame(CONTINUATION, 0, STREAM, part) for part in parts[2:])
    return Answer(
        raw=frame(HEADERS, END_STREAM, STREAM, first) + middle + frame(CONTINUATION, END_HEADERS, STREAM, b"\x82")
    )


UPSTREAM_CASES: dict[str, Callable[[int, Protocol], Answer]] = {
    "upstream head": answer_of_head,
    "upstream trailers": lambda size, _: Answer(body=b"x", trailers=(("x-t", "a" * (size - len("x-t: "))),)),
    "upstream interim answers": lambda count, _: Answer(interim=count),
    "upstream chunk line": lambda size, _: Answer(
        raw=CHUNKED + b"1;%b\r\nx\r\n0\r\n\r\n" % (b"a" * (size - len("1;\r\n")))
    ),
    "upstream chunk extensions": lambda size, _: Answer(raw=CHUNKED + request_of_extensions(size).wire_body),
}
"""By row: a function that returns the answer at a bound of this number of units."""

BEGUN = {"upstream trailers", "upstream chunk line", "upstream chunk extensions"}
"""Rows whose answers have begun to pass to the client when they exceed the bound."""

CONNECTION_CASES: dict[str, Callable[[int], tuple[bytes, int]]] = {
    "upstream settings": lambda count: (settings(*[(1, 4096)] * count) + SERVED, 200),
    "upstream frame": lambda size: (frame(UNKNOWN, 0, 0, bytes(size)) + SERVED, 200),
    "upstream field block": lambda factor: (answer_of_block(factor, HTTP2).raw, 502),
}
"""By row: a function that returns frames at a bound of the connection, and the status of the answer below it."""


class Asker:
    """A client of either protocol that requests paths. Over HTTP/1.1, each path has a connection of its own."""

    def __init__(self, edge: Edge, connection: Http2Wire | None) -> None:
        self._edge, self._http2 = edge, connection
        self._wires: dict[str, Wire] = {}
        self._streams: dict[str, int] = {}

    async def asks(self, path: str, method: str = "POST") -> None:
        fields = (("content-length", "0"),) if method == "POST" else ()
        if self._http2 is not None:
            self._streams[path] = await self._http2.begins_request(method, path, *fields)
            return
        if path not in self._wires:
            self._wires[path] = await self._edge.client()
        await self._wires[path].sends(head(f"{method} {path} HTTP/1.1", "Host: edge.test", *map(": ".join, fields)))

    async def gets_answer(self, path: str) -> Message:
        """Return the final answer. Raises Cut or ConnectionError if it is cut off."""
        if self._http2 is not None:
            return await self._http2.answer_of(self._streams[path])
        answer = await self._wires[path].gets_answer()
        while answer.status < 200:
            answer = await self._wires[path].gets_answer()
        return answer


async def create_asker(edge: Edge, protocol: Protocol) -> Asker:
    return Asker(edge, await http2(edge) if protocol is HTTP2 else None)


async def _ask(edge: Edge, client: Asker, server: Http2Server | None) -> tuple[Any, int]:
    """Send a POST. Return the upstream's connection and stream."""
    await client.asks("/public/x")
    if server is None:
        return await edge.upstream.takes(), 0
    stream = max(server.protocol.streams, default=-1) + 2
    await server.gets_request(stream)
    return server, stream


async def _send(answer: Answer, side: Any, stream: int) -> None:
    await (answer.send_http2(side, stream) if stream else side.sends(answer.format_http1()))


def check_edge_is_blamed(edge: Edge, row: Bound, line: dict[str, Any]) -> None:
    """Check that the row's error is logged and counted, and that the endpoint is charged only for its own faults."""
    assert row.error is not None
    assert line["error"] == row.error
    assert edge.count("edge_upstream_errors_total", "api", row.error) == 1
    charged = 0 if row.side is Side.EDGE else 1
    assert edge.endpoint().errors == charged
    assert edge.count("edge_upstream_ejections_total", "api") == 0


@pytest.mark.parametrize("clients", BOTH, ids=lambda protocol: f"a client over {protocol.value}")
@pytest.mark.parametrize(("name", "protocol"), list_cases(UPSTREAM_CASES))
async def test_upstream_answer_beyond_a_bound_is_refused(
    edge: Edge, name: str, protocol: Protocol, clients: Protocol
) -> None:
    row, create = BOUNDS[name], UPSTREAM_CASES[name]
    edge.config["upstreams"]["api"]["protocol"] = "http/1.1" if protocol is HTTP1 else "h2c"
    client = await create_asker(edge, clients)
    await client.asks("/public/other", "GET")
    accepted = await edge.upstream.accepts()
    server = await Http2Server(accepted).begins() if protocol is HTTP2 else None
    await (accepted.gets_request() if server is None else server.gets_request(1))
    side, stream = await _ask(edge, client, server)
    await _send(create(get_number(row), protocol), side, stream)
    assert (await client.gets_answer("/public/x")).status == 200
    if protocol is HTTP1:
        side.closes()
        await edge.settles()
    side, stream = await _ask(edge, client, server)
    await _send(create(get_number(row) + 1, protocol), side, stream)
    if name in BEGUN:
        with pytest.raises((Cut, ConnectionError)):
            await client.gets_answer("/public/x")
        check_edge_is_blamed(edge, row, await find_log_line(edge, 200, "/public/x"))
    else:
        answer = await client.gets_answer("/public/x")
        assert (answer.status, answer["Proxy-Status"]) == (row.status, f"edgeproxy; error={row.error}")
        assert "closed the connection" not in answer.body.decode()
        check_edge_is_blamed(edge, row, await find_log_line(edge, answer.status, "/public/x"))
        if server is not None and name == "upstream interim answers":
            reset = frame(RST_STREAM, 0, stream, ErrorCodes.CANCEL.to_bytes(4, "big"))
            assert await server.wire.gets_bytes(len(reset)) == reset
    await _send(Answer(), accepted if server is None else server, 0 if server is None else 1)
    assert (await client.gets_answer("/public/other")).status == 200, "another request to the service is served"


@pytest.mark.parametrize("clients", BOTH, ids=lambda protocol: f"a client over {protocol.value}")
@pytest.mark.parametrize("name", CONNECTION_CASES)
async def test_a_bound_of_a_connection_to_an_upstream(edge: Edge, name: str, clients: Protocol) -> None:
    row, create = BOUNDS[name], CONNECTION_CASES[name]
    assert row.error is not None
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    client = await create_asker(edge, clients)
    await client.asks("/public/other", "GET")
    server = await Http2Server(await edge.upstream.accepts()).begins()
    await server.gets_request(1)
    _, stream = await _ask(edge, client, server)
    frames, status = create(get_number(row))
    await _send(Answer(raw=frames), server, stream)
    assert (await client.gets_answer("/public/x")).status == status, "the connection is still used"
    is_counted = edge.count("edge_upstream_errors_total", "api", row.error)
    _, stream = await _ask(edge, client, server)
    await _send(Answer(raw=create(get_number(row) + 1)[0]), server, stream)
    answer = await client.gets_answer("/public/x")
    assert (answer.status, answer["Proxy-Status"]) == (row.status, f"edgeproxy; error={row.error}")
    detail = orjson.loads(answer.body)["detail"]
    assert ("The upstream breaks" if row.side is Side.UPSTREAM else "a bound of its own") in detail
    assert (await find_log_line(edge, answer.status, "/public/x"))["error"] == row.error
    assert edge.count("edge_upstream_errors_total", "api", row.error) == is_counted + 2, "the other request was retried"
    assert (edge.endpoint().errors > 0) is (row.side is Side.UPSTREAM)
    await server.wire.gets_cut()
    again = await Http2Server(await edge.upstream.accepts()).begins()
    await again.gets_request(1)
    await again.sends_head(1, 200, ended=True)
    assert (await client.gets_answer("/public/other")).status == 200, (
        "the other request is served over a new connection"
    )
    await again.gets_acknowledgement()  # A busy edge does so after the request.
