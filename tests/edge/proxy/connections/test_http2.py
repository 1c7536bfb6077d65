"""Requests over HTTP/2: each stream has all features of an HTTP/1.1 request."""

import asyncio
import hashlib
import struct

import orjson
import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import Settings

from loadtest.testbed.frames import TEXT, frame
from tests.edge.http2 import peer
from tests.edge.proxy.leaving import Drain
from tests.support.http2_wire import Http2Wire, http2, opens_websocket
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok
from tests.support.wire import Cut

WITH_KEY = ("x-api-key", KEY)
UNLIMITED_KEY = ("x-api-key", UNLIMITED)


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["access_log"] = str(edge._folder / "access.log")
    return edge


async def lines(edge: Edge, n: int) -> list[dict[str, object]]:
    """Return the first `n` lines of the access log."""
    file = edge._folder / "access.log"
    await edge.until(lambda: file.exists() and file.read_bytes().count(b"\n") >= n, f"{n} lines")
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


# ---- which protocol


async def test_both_are_spoken_at_one_address(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    newer, older = await http2(edge), await edge.client()
    assert (await newer.asks("/public/a")).body == b"GET /public/a HTTP/1.1"
    assert (await older.asks(get("/public/b"))).body == b"GET /public/b HTTP/1.1"
    assert [line["protocol"] for line in await lines(edge, 2)] == ["HTTP/2", "HTTP/1.1"]
    await edge.until(lambda: edge.count("edge_http2_streams_total") == 1)
    assert edge.count("edge_http2_connections") == 1
    assert edge.count("edge_connections", "client") == 2


async def test_http2_preface_arrives_byte_by_byte_and_a_similar_start_is_http1(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = Http2Wire(await edge.client())
    edge.clients[-1] = client  # type: ignore[call-overload]
    client.protocol.initiate_connection()
    for byte in client.protocol.data_to_send():
        await client.wire.sends(bytes([byte]))
    assert (await client.asks()).status == 200
    other = await edge.client()
    await other.sends(b"P")
    assert (await other.asks(b"OST /public/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).status == 200


async def test_a_listener_without_it_refuses_the_preface(edge: Edge) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": False}
    client = await edge.client()
    await client.sends(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (await client.gets_answer()).status == 505
    await client.gets_eof()


async def test_listener_speaks_http2_by_default(edge: Edge) -> None:
    edge.config["listen"] = "127.0.0.1:0"
    assert (await (await http2(edge)).asks("/other")).status == 404


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

BROWSERS = {
    # Settings in order, the increment of the connection's window, priorities (stream, depends on, weight), the first
    # stream, and the order of the pseudo-header fields.
    "Chrome 126": ([(1, 65536), (2, 0), (4, 6291456), (6, 262144)], 15663105, [], 1, "masp"),
    "Firefox 115": (
        [(1, 65536), (4, 131072), (5, 16384)],
        12517377,
        [(3, 0, 200), (5, 0, 100), (7, 0, 0), (9, 7, 0), (11, 3, 0), (13, 0, 240)],
        15,
        "mpas",
    ),
    "Firefox 135": ([(1, 65536), (2, 0), (4, 131072), (5, 16384)], 12517377, [], 3, "mpas"),
    "Safari 17": ([(4, 4194304), (3, 100)], 10485760, [], 1, "mspa"),
    "Safari on iOS 18": ([(2, 0), (3, 100), (4, 2097152), (8, 1), (9, 1)], 10420225, [], 1, "msap"),
}


@pytest.mark.parametrize("browser", BROWSERS)
async def test_browsers_begin_with_their_own_settings_windows_and_priorities(edge: Edge, browser: str) -> None:
    """These are the browsers' fingerprints: settings, window, priorities and the order of pseudo-header fields."""
    settings, window, priorities, first, order = BROWSERS[browser]
    body = b"x" * 300_000
    edge.upstream.answers(lambda request: ok(body))
    client = Http2Wire(await edge.client())
    edge.clients[-1] = client  # type: ignore[call-overload]
    known = {number: value for number, value in settings if number <= 6}
    client.protocol.local_settings = Settings(client=True, initial_values=known)
    client.protocol.local_settings.acknowledge()
    client.protocol.initiate_connection()
    client.protocol.increment_flow_control_window(window)
    client.protocol.clear_outbound_data_buffer()
    await client.wire.sends(
        PREFACE,
        peer.frame(4, 0, 0, b"".join([struct.pack(">HI", number, value) for number, value in settings])),
        peer.frame(8, 0, 0, struct.pack(">I", window)),
        *[peer.frame(2, 0, stream, struct.pack(">IB", on, weight)) for stream, on, weight in priorities],
    )
    pseudo = {"m": (":method", "GET"), "p": (":path", "/public/"), "a": (":authority", "h"), "s": (":scheme", "https")}
    for number in range(first, first + 6, 2):
        fields = [*[pseudo[letter] for letter in order], ("accept", "*/*"), ("te", "trailers"), ("priority", "u=0, i")]
        client.protocol.send_headers(number, fields, end_stream=True, priority_weight=256, priority_exclusive=True)
    await client.flushes()
    for number in range(first, first + 6, 2):
        answer = await client.answer_of(number)
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("together", [True, False])
async def test_a_preface_behind_a_request_is_a_bad_request(edge: Edge, together: bool) -> None:
    """A proxy in front may send requests of several clients over one connection. No client may switch its protocol."""
    client = await edge.client()
    if together:
        await client.sends(get("/other") + PREFACE)
    else:
        await client.asks(get("/other"))
        await client.sends(PREFACE)
    answers = [(await client.gets_answer()).status for _ in range(2 if together else 1)]
    assert answers[-1] == 505
    await client.gets_eof()
    assert edge.count("edge_http2_connections") == 0


async def test_a_connection_that_turns_out_to_be_of_http2_counts_once(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 1}
    for _ in range(3):
        client = await http2(edge)
        assert (await client.asks("/other")).status == 404
        refused = await edge.client()
        assert (await refused.gets_answer()).status == 429
        refused.closes()
        client.closes()
        await edge.until(lambda: not edge.runtime.connections.clients, "the connection is closed")


async def test_half_a_preface_gets_no_longer_than_any_head(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "200ms"}
    client = await edge.client()
    await client.sends(PREFACE[:10])
    assert (await client.gets_answer()).status == 408
    await client.gets_eof()
    other = await edge.client()
    await other.sends(PREFACE[:10])
    other.sends_eof()
    await other.gets_eof()


# ---- features of a request


async def test_limits_count_streams_as_requests(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client, other = await http2(edge), await http2(edge)
    statuses = []
    for one in (client, other) * 4:
        numbers = [await one.begins_request("GET", "/v1/x", WITH_KEY) for _ in range(10)]
        statuses += [(await one.answer_of(number)).status for number in numbers]
    assert (statuses.count(200), statuses.count(429)) == (60, 20)
    assert edge.usage()["acme", "requests", "v1"] == 60
    older = await edge.client()
    assert (await older.asks(get("/v1/x", f"X-API-Key: {KEY}"))).status == 429


async def test_per_ip_limit_is_charged_for_streams_reset_at_once(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "20/min"}
    client = await http2(edge)
    for _ in range(20):
        number = await client.begins_request("GET", "/v1/x", ("x-api-key", "of-nobody"))
        client.protocol.reset_stream(number)
        await client.flushes()
    assert (await client.asks("/public/")).status == 429


async def test_http2_request_gets_stamps_and_forwarded_fields(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/v1/x?q=1", UNLIMITED_KEY, ("cookie", "a=1"), ("cookie", "b=2"))
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_request()
    assert request.first == "GET /v1/x?q=1 HTTP/1.1"
    assert request["Cookie"] == "a=1; b=2"
    assert request["X-Customer-Id"] == "free"
    assert request["X-Forwarded-For"] == "127.0.0.1"
    assert request["X-Forwarded-Proto"] == "http"
    assert "X-API-Key" not in request
    await upstream.sends(ok())
    assert (await client.answer_of(number))["x-request-id"] == request["X-Request-Id"]


async def test_a_trusted_proxy_names_a_client_for_each_stream(edge: Edge) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.2"]
    edge.config["per_ip"] = {"rate": "2/min"}
    edge.upstream.answers(lambda request: ok(request["X-Forwarded-For"].encode()))
    proxy = await http2(edge, "127.0.0.2")
    names = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.1"]
    numbers = [await proxy.begins_request("GET", "/public/", ("x-forwarded-for", name)) for name in names]
    answers = [await proxy.answer_of(number) for number in numbers]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 429]
    assert [answer.body.decode().partition(",")[0] for answer in answers[:4]] == names[:4]


async def test_concurrency_is_held_until_an_exchange_is_over(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [], "concurrency": 2}
    client = await http2(edge)
    first = await client.begins_request("GET", "/v1/x", WITH_KEY)
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    second = await client.begins_request("GET", "/v1/x", WITH_KEY)
    await (await edge.upstream.accepts()).gets_request()
    assert (await client.asks("/v1/x", WITH_KEY)).status == 429
    await upstream.sends(ok())
    assert (await client.answer_of(first)).status == 200
    client.protocol.reset_stream(second)
    await client.flushes()
    await edge.until(lambda: not edge.in_use(), "every slot is given back")
    log = await lines(edge, 3)
    assert [line.get("aborted") for line in log] == [None, None, True]
    await edge.until(lambda: edge.count("edge_http2_resets_total", "client", "NO_ERROR") == 1)


# ---- bodies


@pytest.mark.parametrize("declared", [True, False])
async def test_upload_larger_than_all_windows_arrives(edge: Edge, declared: bool) -> None:
    edge.upstream.answers(lambda request: ok(hashlib.sha256(request.body).hexdigest().encode()))
    client = await http2(edge)
    body = bytes(range(256)) * 12_000
    fields = (("content-length", str(len(body))),) if declared else ()
    answer = await client.posts("/public/", body, *fields)
    assert answer.body == hashlib.sha256(body).hexdigest().encode()
    assert (await lines(edge, 1))[0]["bytes_in"] == len(body)


async def test_trailers_pass_both_ways(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("POST", "/public/", ended=False)
    client.protocol.send_data(number, b"hello")
    client.protocol.send_headers(number, [("x-sum", "1"), ("x-customer-id", "me")], end_stream=True)
    await client.flushes()
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_request()
    assert (request.body, request.trailers) == (b"hello", [("x-sum", "1")])
    chunked = chunks(b"wor", b"ld", trailers=("X-Sum: 2",))
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunked)
    answer = await client.answer_of(number)
    assert (answer.body, answer.trailers) == (b"world", [("x-sum", "2")])


async def test_an_early_answer_to_a_running_upload_is_not_lost(edge: Edge) -> None:
    """The edge delays its reset, because some clients drop the answer on a reset."""
    edge.config["limits"] = {"body": "100KiB"}
    client = await http2(edge)
    number = await client.begins_request("POST", "/public/", ended=False)
    await client.sends_data(number, bytes(60_000))
    upstream = await edge.upstream.accepts()
    await client.sends_data(number, bytes(60_000))
    answer = await client.answer_of(number)
    assert answer.status == 413
    await upstream.gets_cut()
    await client.sends_data(number, bytes(200_000), ended=True)
    assert (await client.asks("/other")).status == 404


async def test_endless_upload_after_an_answer_is_reset(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.connections.http2_stream.LINGER_SECONDS", 0.1)
    client = await http2(edge)
    number = await client.begins_request("POST", "/nowhere", ended=False)
    assert (await client.answer_of(number)).status == 404
    assert await client.reset_of(number) == ErrorCodes.NO_ERROR


async def test_truncated_answer_resets_its_http2_stream(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"hello")
    upstream.closes()
    answer = await client.head_of(number)
    with pytest.raises(Cut, match="reset with 2"):
        await client.rest_of(number, answer)
    await edge.until(lambda: edge.count("edge_http2_resets_total", "edge", "INTERNAL_ERROR") == 1)


async def test_slow_http2_stream_does_not_delay_another(edge: Edge) -> None:
    client = await http2(edge)
    slow = await client.begins_request("GET", "/public/slow")
    first = await edge.upstream.accepts()
    await first.gets_request()
    fast = await client.begins_request("GET", "/public/fast")
    second = await edge.upstream.accepts()
    await second.gets_request()
    await second.sends(ok(b"fast"))
    assert (await client.answer_of(fast)).body == b"fast"
    await first.sends(ok(b"slow"))
    assert (await client.answer_of(slow)).body == b"slow"


# ---- WebSockets (RFC 8441)


@pytest.fixture
def switching(edge: Edge) -> Edge:
    edge.config["routes"].insert(0, {"name": "ws", "path": "/ws", "upstream": "api", "upgrade": ["websocket"]})
    return edge


async def test_a_websocket_on_a_stream_beside_a_request(switching: Edge) -> None:
    client = await http2(switching)
    number, upstream = await opens_websocket(switching, client, UNLIMITED_KEY)
    answer = await client.head_of(number)
    assert (answer.status, answer.all("sec-websocket-accept")) == (200, [])
    hello = frame(TEXT, b"hello")
    await client.sends_data(number, hello)
    await upstream.gets(hello)
    back = bytes((0x81, 5)) + b"world"
    await upstream.sends(back)
    event = await client.next_event(number, DataReceived)
    assert event.data == back
    assert (await client.asks("/other")).status == 404
    await client.sends_data(number, b"", ended=True)
    await upstream.gets_eof()
    upstream.closes()
    await client.next_event(number, StreamEnded)


async def test_an_upstream_that_has_not_understood_the_key_gets_no_websocket(switching: Edge) -> None:
    client = await http2(switching)
    number, _ = await opens_websocket(switching, client, UNLIMITED_KEY, accept=b"bm90aGluZw==")
    assert await client.reset_of(number) == ErrorCodes.INTERNAL_ERROR
    assert switching.count("edge_upstream_errors_total", "api", "http_upgrade_failed") == 1


async def test_an_answer_that_opens_no_websocket_does_not_pass_for_one(switching: Edge) -> None:
    """A 2xx opens the WebSocket in the view of a client, and the script of another site could read its body."""
    switching.config["routes"].insert(0, {"path": "/fixed", "respond": {"status": 200, "body": "as it is"}})
    client = await http2(switching)
    for path, status, told in (("/ws", 200, 502), ("/public/", 204, 502), ("/ws", 403, 403)):
        number = await client.begins_request("CONNECT", path, UNLIMITED_KEY, ended=False, protocol="websocket")
        upstream = await switching.upstream.accepts()
        await upstream.gets_request()
        await upstream.sends(head(f"HTTP/1.1 {status} So", "Content-Length: 0", "Connection: close"))
        upstream.closes()
        assert (await client.answer_of(number)).status == told
    number = await client.begins_request("CONNECT", "/fixed", ended=False, protocol="websocket")
    assert (await client.answer_of(number)).status == 400
    assert switching.count("edge_upstream_errors_total", "api", "http_upgrade_failed") == 2


# ---- the end


async def test_drain_sends_two_goaways_and_serves_earlier_streams(edge: Edge) -> None:
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    drain = Drain(edge, 20)
    try:
        assert (await client.goaway()).last_stream_id == (1 << 31) - 1
        assert (await client.goaway()).last_stream_id == number
        await upstream.sends(ok())
        # The library refuses frames on streams from before the GOAWAY, although the RFC allows them (section 6.8).
        with pytest.raises((Cut, ConnectionError, ProtocolError)):
            await client.answer_of(number)
    finally:
        client.closes()
        await drain.ends()
    assert (await lines(edge, 1))[0]["status"] == 200
    assert edge.count("edge_http2_goaways_total", "NO_ERROR") == 1


async def test_an_idle_connection_ends_with_a_goaway(edge: Edge) -> None:
    edge.config["limits"] = {"keepalive_idle": "100ms"}
    client = await http2(edge)
    assert (await client.asks("/other")).status == 404
    ending: ConnectionTerminated = await client.goaway()
    assert (ending.last_stream_id, ending.error_code) == (1, ErrorCodes.NO_ERROR)
    await client.wire.gets_eof()


async def test_a_client_that_leaves_ends_all_its_requests(edge: Edge) -> None:
    client = await http2(edge)
    for _ in range(3):
        await client.begins_request("GET", "/v1/x", UNLIMITED_KEY)
    wires = [await edge.upstream.accepts() for _ in range(3)]
    for wire in wires:
        await wire.gets_request()
    client.closes()
    await asyncio.gather(*(wire.gets_cut() for wire in wires))
    assert [line.get("aborted") for line in await lines(edge, 3)] == [True] * 3


async def test_answers_in_the_turn_of_a_client_reset_are_dropped(edge: Edge) -> None:
    """The answers are buffered until the end of the turn. By then the connection is gone."""
    client = await http2(edge)
    for _ in range(2):
        await client.begins_request("GET", "/public/")
    wires = [await edge.upstream.takes() for _ in range(2)]
    client.wire.aborts()
    for wire in wires:
        await wire.sends(ok())
    await edge.until(lambda: not edge.runtime.connections.http2_clients)
