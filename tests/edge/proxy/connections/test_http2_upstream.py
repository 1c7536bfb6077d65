"""Upstreams with HTTP/2: exchanges over streams of shared connections."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, InformationalResponseReceived, StreamReset

from edgeproxy.edge.proxy.connections import upstream_stream
from edgeproxy.edge.proxy.exchange.forwarding import KEPT_BYTES_MAX
from loadtest.testbed.customers import key_of
from tests.edge.http2.peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    block,
    frame,
    settings,
)
from tests.support.http2_server import Http2Server
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, get, head
from tests.support.wire import PATIENCE, Message, Wire

POST = head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 5") + b"hello"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    return edge


async def asked(edge: Edge, *requests: bytes, **settings: int) -> tuple[Wire, Http2Server]:
    """Send requests from a new client. Return it with the upstream's side of the connection."""
    client = await edge.client()
    await client.sends(*requests)
    return client, await accepts(edge, **settings)


async def accepts(edge: Edge, **settings: int) -> Http2Server:
    return await Http2Server(await edge.upstream.accepts(), **settings).begins()


# ---- requests and answers


async def test_a_request_of_http1_and_its_answer(edge: Edge) -> None:
    client, upstream = await asked(edge, get("/v1/x?q=1", f"X-API-Key: {KEY}", "TE: trailers", "Connection: te"))
    fields, body, _ = await upstream.gets_request(1)
    pseudo = [fields[f":{name}"] for name in ("method", "scheme", "path", "authority")]
    assert pseudo == ["GET", "http", "/v1/x?q=1", "edge.test"]
    assert (fields["te"], fields["x-customer-id"], fields["via"]) == ("trailers", "acme", "1.1 edgeproxy")
    assert not {"host", "connection", "transfer-encoding", "x-api-key"} & fields.keys()
    assert body == b""
    await upstream.sends_head(1, 103, ("link", "</a>"))
    assert (await client.gets_answer()).status == 103
    await upstream.sends_head(1, 200, ("content-length", "5"), ("x-own", "1"))
    await upstream.sends_data(1, b"hello", ended=True)
    answer = await client.gets_answer()
    assert (answer.status, answer.body, answer["x-own"]) == (200, b"hello", "1")
    assert answer["X-Request-Id"] == fields["x-request-id"]
    assert edge.usage()["acme", "requests", "v1"] == 1


async def test_bodies_with_a_length_in_chunks_and_with_trailers(edge: Edge) -> None:
    client, upstream = await asked(edge, POST)
    fields, body, _ = await upstream.gets_request(1)
    assert (fields["content-length"], body) == ("5", b"hello")
    await upstream.sends_head(1, 200)
    await upstream.sends_data(1, b"one")
    await upstream.sends_trailers(1, ("x-sum", "7"))
    answer = await client.gets_answer()
    assert (answer.body, answer.trailers) == (b"one", [("x-sum", "7")])
    chunked = head("POST /public/ HTTP/1.1", "Host: edge.test", "Transfer-Encoding: chunked")
    await client.sends(chunked, b"3\r\nabc\r\n")
    await upstream.gets_head(3)
    await client.sends(b"2\r\nde\r\n0\r\nX-Back: 8\r\n\r\n")
    body, trailers = await upstream.gets_body(3)
    assert (body, trailers) == (b"abcde", (("x-back", "8"),))
    await upstream.sends_head(3, 204, ended=True)
    assert (await client.gets_answer()).status == 204


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_expect_100_continue_and_its_response_are_forwarded(edge: Edge, version: str) -> None:
    expecting = ("expect", "100-continue")
    if version == "HTTP/2":
        streams = await http2(edge)
        number = await streams.begins_request("PUT", "/public/", expecting, ("content-length", "5"), ended=False)
    else:
        client = await edge.client()
        await client.sends(head("PUT /public/ HTTP/1.1", "Host: h", "Expect: 100-continue", "Content-Length: 5"))
    upstream = await accepts(edge)
    assert (await upstream.gets_head(1))["expect"] == "100-continue"
    await upstream.sends_head(1, 100)
    if version == "HTTP/2":
        await streams.next_event(number, InformationalResponseReceived)
        await streams.sends_data(number, b"hello", ended=True)
    else:
        assert (await client.gets_answer()).status == 100
        await client.sends(b"hello")
    assert (await upstream.gets_body(1))[0] == b"hello"
    await upstream.sends_head(1, 204, ended=True)
    answer = await (streams.answer_of(number) if version == "HTTP/2" else client.gets_answer())
    assert answer.status == 204


@pytest.mark.parametrize("is_answered", [False, True])
async def test_a_call_with_small_messages_is_not_ended_by_body_idle(edge: Edge, is_answered: bool) -> None:
    """The service is silent during the call, before or after the head of its response."""
    edge.config["limits"] = {"body_idle": "1s"}
    edge.config["upstreams"]["api"]["timeouts"]["idle"] = "1s"
    client = await http2(edge)
    number = await client.begins_request("POST", "/public/", ended=False)
    upstream = await accepts(edge)
    await upstream.gets_head(1)
    if is_answered:
        await upstream.sends_head(1, 200)
    for _ in range(12):
        await client.sends_data(number, b"message")
        await asyncio.sleep(0.25)  # The pace of the client.
    await client.sends_data(number, b"", ended=True)
    assert (await upstream.gets_body(1))[0] == b"message" * 12
    if not is_answered:
        await upstream.sends_head(1, 200)
    await upstream.sends_data(1, b"ok", ended=True)
    assert (await client.answer_of(number)).body == b"ok"


async def test_a_trickling_body_with_a_length_is_ended(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "1s"}
    client = await http2(edge)
    number = await client.begins_request("POST", "/public/", ("content-length", "100"), ended=False)
    upstream = await accepts(edge)
    await upstream.gets_head(1)
    for _ in range(6):
        await client.sends_data(number, b"a")
        await asyncio.sleep(0.25)  # The pace of the client.
    assert (await client.answer_of(number)).status == 408
    assert (await upstream.next_event(1, StreamReset)).error_code == ErrorCodes.CANCEL


@pytest.mark.parametrize(
    ("method", "status", "ended"), [("HEAD", 200, True), ("GET", 204, True), ("GET", 304, True), ("GET", 200, True)]
)
async def test_http2_response_without_a_body_is_relayed(edge: Edge, method: str, status: int, ended: bool) -> None:
    client, upstream = await asked(edge, head(f"{method} /public/ HTTP/1.1", "Host: edge.test"))
    await upstream.gets_request(1)
    await upstream.sends_head(1, status, ended=ended)
    answer = await client.gets_answer(method)
    assert (answer.status, answer.body) == (status, b"")
    await client.sends(get("/public/again"))
    await upstream.gets_request(3)
    await upstream.sends_head(3, 200, ("content-length", "2"))
    await upstream.sends_data(3, b"ok", ended=True)
    assert (await client.gets_answer()).body == b"ok"


# ---- malformed responses


@pytest.mark.parametrize(
    "answer",
    [
        lambda upstream: upstream.sends_head(1, 101, ended=False),
        lambda upstream: upstream.sends_head(1, 200, ("transfer-encoding", "chunked")),
        lambda upstream: upstream.sends_head(1, 200, ("x-a", "b\r\nx-c: d")),
        lambda upstream: upstream.sends_head(1, 200, ("x a", "b")),
        lambda upstream: upstream.sends_head(1, 99),
        lambda upstream: upstream.resets(1, ErrorCodes.INTERNAL_ERROR),
    ],
    ids=["101", "of a connection", "a line break", "a name with a space", "no status", "reset"],
)
async def test_a_malformed_answer_is_a_fault(
    edge: Edge, answer: Callable[[Http2Server], Awaitable[None]], request: pytest.FixtureRequest
) -> None:
    is_reset = request.node.callspec.id == "reset"
    client, upstream = await asked(edge, POST)
    await upstream.gets_request(1)
    await answer(upstream)
    fault = await client.gets_answer()
    error = "connection_terminated" if is_reset else "http_protocol_error"
    assert (fault.status, fault["Proxy-Status"]) == (502, f"edgeproxy; error={error}")
    assert ("The upstream reset" if is_reset else "The upstream's answer is malformed") in fault.body.decode()
    assert edge.endpoint().errors == 1
    await client.sends(POST)
    await upstream.gets_request(3)
    await upstream.sends_head(3, 200, ended=True)
    assert (await client.gets_answer()).status == 200


async def test_a_response_head_that_is_too_long_answers_502_for_its_request_only(edge: Edge) -> None:
    """A service with HTTP/2 may send such a head in any number of frames."""
    client, upstream = await asked(edge, get())
    other = await edge.client()
    await other.sends(get("/public/other"))
    for number in (1, 3):
        await upstream.gets_request(number)
    await upstream.sends_head(1, 200, *[("x-long", "~" * 130)] * 440)
    await upstream.sends_data(1, b"passes", ended=True)
    answer = await client.gets_answer()
    assert (answer.status, len(answer.all("x-long")), answer.body) == (200, 440, b"passes")
    await client.sends(get())
    await upstream.gets_request(5)
    await upstream.sends_head(5, 200, *[("x-long", "~" * 1000)] * 300)
    answer = await client.gets_answer()
    assert (answer.status, answer["Proxy-Status"]) == (502, "edgeproxy; error=http_response_header_section_size")
    assert (await upstream.next_event(5, StreamReset)).error_code == ErrorCodes.CANCEL
    await upstream.sends_head(3, 200, ("content-length", "2"))
    await upstream.sends_data(3, b"ok", ended=True)
    assert (await other.gets_answer()).body == b"ok"


async def test_a_body_beyond_the_window_is_a_fault_of_the_upstream(edge: Edge) -> None:
    client = await http2(edge)
    client.window = False
    number = await client.begins_request("GET", "/public/")
    upstream = await accepts(edge)
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200)
    await upstream.wire.sends(frame(DATA, 0, 1, bytes(16384)) * 24)
    assert (await upstream.next_event(1, StreamReset)).error_code == ErrorCodes.FLOW_CONTROL_ERROR
    assert await client.reset_of(number) == ErrorCodes.INTERNAL_ERROR
    assert edge.count("edge_upstream_errors_total", "api", "http_protocol_error") == 1
    assert edge.endpoint().errors == 1


async def test_a_cut_off_response_never_looks_complete(edge: Edge) -> None:
    for fields in ((), (("content-length", "10"),)):
        client = await edge.client()
        await client.sends(POST)
        upstream = await accepts(edge)
        await upstream.gets_request(1)
        await upstream.sends_head(1, 200, *fields)
        await upstream.sends_data(1, b"hello")
        assert (await client.gets_head()).status == 200
        await upstream.resets(1, ErrorCodes.CANCEL)
        await client.gets_cut()
        client.closes()
        upstream.closes()
        await edge.until(lambda: not edge.runtime.connections.upstreams)


async def test_end_stream_may_come_after_the_last_byte_of_a_response(edge: Edge) -> None:
    """A reset of each such response would be wrong, because servers end connections with many resets."""
    client, upstream = await asked(edge, get())
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ("content-length", "5"))
    await upstream.sends_data(1, b"hello")
    assert (await client.gets_answer()).body == b"hello"
    await upstream.sends_data(1, b"", ended=True)
    await client.sends(get())
    await upstream.gets_request(3)
    assert not [event for event in upstream.events[1] if isinstance(event, StreamReset)]
    await upstream.sends_head(3, 200, ended=True)
    assert (await client.gets_answer()).status == 200


async def test_a_grpc_call_with_a_content_length_gets_its_status(edge: Edge) -> None:
    client = await http2(edge)
    call = await client.begins_request("POST", "/public/", ("content-type", "application/grpc"), ("te", "trailers"))
    upstream = await accepts(edge)
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ("content-type", "application/grpc"), ("content-length", "5"))
    await upstream.sends_data(1, b"hello")
    await upstream.sends_trailers(1, ("grpc-status", "0"))
    answer = await client.answer_of(call)
    assert (answer.body, answer.trailers) == (b"hello", [("grpc-status", "0")])


@pytest.mark.parametrize("more", [b"", b" and more"])
async def test_a_response_without_end_stream_after_its_last_byte_is_reset(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(upstream_stream, "END_SECONDS", PATIENCE if more else 0.01)
    client, upstream = await asked(edge, get())
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ("content-length", "5"))
    await upstream.sends_data(1, b"hello")
    assert (await client.gets_answer()).body == b"hello"
    if more:
        await upstream.sends_data(1, more)
    assert (await upstream.next_event(1, StreamReset)).error_code == ErrorCodes.CANCEL
    await client.sends(get())
    await upstream.gets_request(3)
    await upstream.sends_head(3, 200, ended=True)
    assert (await client.gets_answer()).status == 200


async def test_a_response_that_ends_before_its_length_is_cut(edge: Edge) -> None:
    """RFC 9113 section 8.1.1. Without this check, the client waits for the body until its time-out."""
    client, upstream = await asked(edge, get())
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ("content-length", "5"), ended=True)
    assert (await client.gets_head()).status == 200
    await client.gets_cut()


async def test_http1_answer_of_an_http2_upstream_becomes_502(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(POST)
    upstream = await edge.upstream.accepts()
    await upstream.gets_until(b"hello")
    await upstream.sends(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert (await client.gets_answer()).status == 502
    await upstream.gets_cut()


# ---- unprocessed streams


async def test_a_refused_stream_is_retried_with_any_method(edge: Edge) -> None:
    client, upstream = await asked(edge, POST)
    await upstream.gets_request(1)
    await upstream.resets(1, ErrorCodes.REFUSED_STREAM)
    assert (await upstream.gets_request(3))[1] == b"hello"
    await upstream.sends_head(3, 200, ended=True)
    assert (await client.gets_answer()).status == 200
    assert edge.count("edge_upstream_retries_total", "api") == 1


async def test_refused_streams_are_retried_three_times_without_ejection(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["eject"] = {"errors": 1}
    client, upstream = await asked(edge, POST)
    for number in (1, 3, 5, 7):
        await upstream.gets_request(number)
        await upstream.resets(number, ErrorCodes.REFUSED_STREAM)
    answer = await client.gets_answer()
    assert (answer.status, answer["Retry-After"]) == (503, "1")
    assert answer["Proxy-Status"] == "edgeproxy; error=destination_unavailable"
    assert edge.count("edge_upstream_retries_total", "api") == 3
    assert edge.count("edge_upstream_ejections_total", "api") == 0
    assert edge.endpoint().errors == 0


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_a_stream_refused_within_its_body_is_retried_if_the_body_is_small(edge: Edge, version: str) -> None:
    edge.config["upstreams"]["api"]["eject"] = {"errors": 1}
    if version == "HTTP/2":
        http2_client = await http2(edge)
        stream = await http2_client.begins_request("POST", "/public/", ended=False)
    else:
        client = await edge.client()
        await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Transfer-Encoding: chunked"))

    async def sends(data: bytes, *, ended: bool = False) -> None:
        if version == "HTTP/2":
            await http2_client.sends_data(stream, data, ended=ended)
        else:
            await client.sends(b"%x\r\n%b\r\n" % (len(data), data), b"0\r\n\r\n" if ended else b"")

    async def gets_answer() -> Message:
        return await (http2_client.answer_of(stream) if version == "HTTP/2" else client.gets_answer())

    upstream = await accepts(edge)
    await upstream.gets_head(1)
    first = b"a" * 20_000
    await sends(first)
    received = b""
    while len(received) < len(first):
        received += (await upstream.next_event(1, DataReceived)).data
    await upstream.resets(1, ErrorCodes.REFUSED_STREAM)
    await upstream.gets_head(3)
    await sends(b"b" * 20_000)
    received = b""
    while len(received) < 40_000:
        received += (await upstream.next_event(3, DataReceived)).data
    assert received == first + b"b" * 20_000
    await sends(b"c" * 40_000)
    while len(received) < 80_000:
        received += (await upstream.next_event(3, DataReceived)).data
    await upstream.resets(3, ErrorCodes.REFUSED_STREAM)
    answer = await gets_answer()
    assert (answer.status, answer["Proxy-Status"]) == (503, "edgeproxy; error=destination_unavailable")
    assert edge.count("edge_upstream_ejections_total", "api") == 0


def goaway(last: int, code: ErrorCodes) -> bytes:
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big"))


SERVED = frame(HEADERS, END_HEADERS | END_STREAM, 1, block([(b":status", b"413")]))
BYES: dict[str, tuple[bytes, int, str | None, str, int]] = {
    "GOAWAY below the stream": (
        goaway(0, ErrorCodes.ENHANCE_YOUR_CALM),
        503,
        "destination_unavailable",
        "has begun nothing of it",
        0,
    ),
    "GOAWAY with a reason": (
        goaway(1, ErrorCodes.ENHANCE_YOUR_CALM),
        502,
        "connection_terminated",
        "GOAWAY (ENHANCE_YOUR_CALM)",
        1,
    ),
    "answer and GOAWAY": (SERVED + goaway(1, ErrorCodes.NO_ERROR), 413, None, "", 0),
    "reset without an error": (
        frame(RST_STREAM, 0, 1, bytes(4)),
        502,
        "connection_terminated",
        "reset the request's stream (NO_ERROR)",
        1,
    ),
    "REFUSED_STREAM": (
        frame(RST_STREAM, 0, 1, ErrorCodes.REFUSED_STREAM.to_bytes(4, "big")),
        503,
        "destination_unavailable",
        "has begun nothing of it",
        0,
    ),
    "bound of the edge": (settings(*[(1, 4096)] * 33), 502, "http_protocol_error", "a bound of its own", 0),
}
"""Last frames of a service, with status, error and detail at the client, and the failures charged to the endpoint."""


@pytest.mark.parametrize("is_lost", [False, True], ids=["connection is ended", "connection is reset"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("name", BYES)
async def test_the_last_frames_of_a_service_decide_the_response(
    edge: Edge, name: str, version: str, is_lost: bool
) -> None:
    """The forwarded body is too long for a retry. If the connection is reset, the edge notices the reset during a
    write, with these frames still unread."""
    frames, status, error, detail, charged = BYES[name]
    edge.config["upstreams"]["api"]["eject"] = {"errors": 5}
    body, last = b"a" * (KEPT_BYTES_MAX + 1), b"b" * 100
    if version == "HTTP/2":
        http2_client = await http2(edge)
        stream = await http2_client.begins_request("POST", "/public/", ended=False)
        wire = http2_client.wire
    else:
        wire = await edge.client()
        await wire.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", f"Content-Length: {len(body) + 200}"))
    upstream = await accepts(edge)
    await upstream.gets_head(1)
    await (http2_client.sends_data(stream, body) if version == "HTTP/2" else wire.sends(body))
    received = 0
    while received < len(body):
        received += len((await upstream.next_event(1, DataReceived)).data)
    if version == "HTTP/2":
        http2_client.protocol.send_data(stream, last)
        last = http2_client.protocol.data_to_send()
    if is_lost:
        wire.sends_now(last)  # The edge reads this first.
    upstream.wire.sends_now(frames)
    if is_lost:
        upstream.wire.aborts()
    else:
        upstream.wire.sends_eof()
    answer = await (http2_client.answer_of(stream) if version == "HTTP/2" else wire.gets_answer())
    assert answer.status == status
    assert answer.all("Proxy-Status") == ([] if error is None else [f"edgeproxy; error={error}"])
    assert detail.encode() in answer.body
    assert edge.endpoint().errors == charged
    assert edge.count("edge_upstream_ejections_total", "api") == 0
    upstream.wire.closes()  # The edge's last frames do not matter here.


async def test_a_burst_waits_for_the_settings_of_a_new_connection(edge: Edge) -> None:
    clients = [await edge.client() for _ in range(5)]
    for client in clients:
        await client.sends(get("/public/"))
    first = Http2Server(await edge.upstream.accepts(), MAX_CONCURRENT_STREAMS=2)
    await first.begins()
    second = await accepts(edge, MAX_CONCURRENT_STREAMS=100)
    for server, numbers in ((second, (1, 3, 5)), (first, (1, 3))):
        for number in numbers:
            await server.gets_request(number)
            await server.sends_head(number, 204, ended=True)
    assert [(await client.gets_answer()).status for client in clients] == [204] * 5
    assert edge.count("edge_upstream_retries_total", "api") == 0


async def test_streams_not_served_before_goaway_use_another_connection(edge: Edge) -> None:
    client, upstream = await asked(edge, POST)
    await upstream.gets_request(1)
    other = await edge.client()
    await other.sends(POST)
    await upstream.gets_request(3)
    await upstream.leaves(1)
    again = await accepts(edge)
    assert (await again.gets_request(1))[1] == b"hello"
    await again.sends_head(1, 200, ended=True)
    assert (await other.gets_answer()).status == 200
    # The stream that the upstream still serves ends on the old connection, which then closes. The library h2 sends
    # no more frames after GOAWAY, so the test writes the frame itself.
    await upstream.wire.sends(b"\0\0\1\1\5\0\0\0\1\x88")
    assert (await client.gets_answer()).status == 200
    await upstream.wire.gets_cut()


# ---- many streams


async def test_streams_share_a_connection_up_to_the_upstreams_limit(edge: Edge) -> None:
    client = await http2(edge)
    numbers = [await client.begins_request("GET", "/public/0")]
    upstream = await accepts(edge, MAX_CONCURRENT_STREAMS=2)
    await upstream.gets_request(1)
    numbers.append(await client.begins_request("GET", "/public/1"))
    await upstream.gets_request(3)
    numbers.append(await client.begins_request("GET", "/public/2"))
    second = await accepts(edge)
    await second.gets_request(1)
    for server, number in ((second, 1), (upstream, 3), (upstream, 1)):
        await server.sends_head(number, 200, ended=True)
    assert [(await client.answer_of(number)).status for number in numbers] == [200] * 3
    await client.begins_request("GET", "/public/3")
    await upstream.gets_request(5)
    await upstream.sends_head(5, 200, ended=True)


async def test_a_slow_client_delays_only_its_own_stream(edge: Edge) -> None:
    slow, upstream = await asked(edge, get("/public/large"))
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200)
    sent = 0
    size = 16384
    while True:
        room = min(upstream.protocol.local_flow_control_window(1), size)
        if room < size:
            try:
                async with asyncio.timeout(0.3):
                    await upstream.reads()
            except TimeoutError:
                break
            continue
        await upstream.sends_data(1, bytes(size))
        sent += size
        assert sent < 64 << 20, "everything was taken"
    quick = await edge.client()
    await quick.sends(get("/public/small"))
    await upstream.gets_request(3)
    await upstream.sends_head(3, 200, ("content-length", "2"))
    await upstream.sends_data(3, b"ok", ended=True)
    assert (await quick.gets_answer()).body == b"ok"
    slow.aborts()
    reset = await upstream.next_event(1, StreamReset)
    assert reset.error_code == ErrorCodes.CANCEL


async def test_an_upload_waits_for_the_windows_of_its_upstream(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 100000000"))
    upstream = await accepts(edge)
    upstream.window = False
    await upstream.gets_head(1)
    taken = 0
    while await client.sends_within(bytes(65536), 0.3):
        taken += 65536
        assert taken < 64 << 20, "everything was taken"
    client.aborts()
    reset = await upstream.next_event(1, StreamReset)
    assert reset.error_code == ErrorCodes.CANCEL


async def test_body_pieces_that_arrive_with_an_upstream_reset_are_dropped(edge: Edge) -> None:
    """The edge collects pieces until the end of the event loop's turn. By then it cannot write any more."""
    upload = head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 10")
    first, upstream = await asked(edge, upload)
    await upstream.gets_head(1)
    second = await edge.client()
    await second.sends(upload)
    await upstream.gets_head(3)
    upstream.wire.aborts()
    for client in (first, second):
        await client.sends(b"hello")
    for client in (first, second):
        assert (await client.gets_answer()).status == 502


async def test_a_silent_connection_is_replaced(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"]["response_head"] = "1100ms"
    client, upstream = await asked(edge, get("/public/0"))
    await upstream.gets_request(1)
    await upstream.sends_head(1, 200, ended=True)
    assert (await client.gets_answer()).status == 200
    await client.sends(get("/public/1"))
    await upstream.gets_request(3)
    assert (await client.gets_answer()).status == 504
    await client.sends(get("/public/2"))
    again = await accepts(edge)
    await again.gets_request(1)
    await again.sends_head(1, 200, ended=True)
    assert (await client.gets_answer()).status == 200
    await upstream.wire.gets_cut()


async def test_an_idle_connection_is_closed_even_if_its_last_stream_was_cancelled(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"]["idle"] = "300ms"
    client, upstream = await asked(edge, get("/public/1"))
    await upstream.gets_request(1)
    client.aborts()
    assert (await upstream.next_event(1, StreamReset)).error_code == ErrorCodes.CANCEL
    await upstream.wire.gets_cut()


# ---- calls of gRPC


@pytest.mark.parametrize(("patience", "ends"), [("200m", True), ("1H", False), ("x", False)])
async def test_a_call_ends_at_its_grpc_timeout(edge: Edge, patience: str, ends: bool) -> None:
    client = await http2(edge)
    call = (("content-type", "application/grpc"), ("grpc-timeout", patience))
    number = await client.begins_request("POST", "/public/a.B/C", *call, ended=False)
    await client.sends_data(number, b"\0\0\0\0\0", ended=True)
    upstream = await accepts(edge)
    fields, _, _ = await upstream.gets_request(1)
    assert fields["grpc-timeout"] == patience
    if ends:
        answer = await client.answer_of(number)
        assert (answer.status, answer["grpc-status"]) == (200, "4")
        assert (await upstream.next_event(1, StreamReset)).error_code == ErrorCodes.CANCEL
    else:
        await upstream.sends_head(1, 200, ("grpc-status", "0"), ended=True)
        assert (await client.answer_of(number))["grpc-status"] == "0"


async def test_refused_grpc_call_has_its_status_in_the_head(edge: Edge) -> None:
    client = await http2(edge)
    call = (("content-type", "application/grpc+proto"), ("x-api-key", key_of("nobody")))
    number = await client.begins_request("POST", "/v1/a.B/C", *call)
    answer = await client.answer_of(number)
    assert (answer.status, answer["grpc-status"], answer["content-type"]) == (200, "16", "application/grpc")
    assert answer["grpc-message"]
    assert "content-length" not in answer
    assert answer.body == b""
    plain = await client.asks("/v1/x", ("x-api-key", key_of("nobody")))
    assert plain.status == 401
    number = await client.begins_request("POST", "/v1/a.B/C", *call, *[("x-a", "b" * 10_000)] * 4)
    answer = await client.answer_of(number)
    assert (answer.status, answer["grpc-status"]) == (200, "8"), "the head is too large and is not read"


async def test_a_half_closed_client_with_an_upgrade_request_is_served(edge: Edge) -> None:
    upgrade = ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: a")
    client, upstream = await asked(edge, get("/public/", *upgrade))
    await upstream.gets_head(1)
    client.sends_eof()
    await edge.settles()
    await upstream.sends_head(1, 200, ("content-length", "0"), ended=True)
    assert (await client.gets_answer()).status == 200
