"""The fallback of a route: if the first upstream fails, a second gets the request, without data for the first."""

import hashlib
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import IO, Any

import pytest

from edgeproxy.edge.proxy.exchange import body_file
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN
from tests.edge.body_usage.test_stream_options import WITHOUT
from tests.edge.body_usage.transcripts import CHAT_STREAM, compact
from tests.edge.proxy.failing import is_fault
from tests.edge.proxy.observation.test_tracing import PARENT, SAMPLED, TRACE, attributes, take
from tests.support.http2_server import Http2Server
from tests.support.transcript import KEY, Edge, Upstream, get, head, ok
from tests.support.wire import Message, Wire

FIELDS = (f"X-API-Key: {KEY}", "Host: api.example.com", "Content-Type: application/json")
BUSY = head("HTTP/1.1 429 Too Many Requests", "Content-Length: 4", "Retry-After: 9") + b"busy"
STREAM = "Content-Type: text/event-stream"
CHUNKED = head("HTTP/1.1 200 OK", STREAM, "Transfer-Encoding: chunked")
BODY = b'{"model":"gpt-4o"}'


def ask(path: str = "/v1/chat", body: bytes = BODY) -> bytes:
    """Return a POST of the customer, which is not retried without a fallback."""
    fields = "".join(f"{field}\r\n" for field in FIELDS)
    return f"POST {path} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def second(edge: Edge) -> Upstream:
    """The fallback upstream of the route `v1`."""
    added = edge.adds_endpoint("other")
    edge.config["upstreams"]["other"]["host"] = "upstream"
    edge.config["upstreams"]["other"]["endpoints"] = [added.url + "/compatible"]
    route(edge)["rewrite"] = {"request": {"set": {"Authorization": "Bearer first"}}}
    route(edge)["fallback"] = {
        "upstream": "other",
        "rewrite": {"request": {"set": {"Authorization": "Bearer second"}, "remove": ["X-Only-First"]}},
    }
    return added


def route(edge: Edge) -> dict[str, Any]:
    found: dict[str, Any] = edge.config["routes"][0]
    return found


def refuse(edge: Edge, wire: Wire) -> None:
    wire.closes()


def reset(edge: Edge, wire: Wire) -> None:
    wire.aborts()


def answer_busy(edge: Edge, wire: Wire) -> None:
    wire.sends_now(BUSY)


def answer_in_part(edge: Edge, wire: Wire) -> None:
    wire.sends_now(BUSY[:20])
    wire.closes()


def answer_nonsense(edge: Edge, wire: Wire) -> None:
    wire.sends_now(b"SSH-2.0-OpenSSH\r\n\r\n")


def answer_endlessly(edge: Edge, wire: Wire) -> None:
    wire.sends_now(head("HTTP/1.1 500 Oops", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")


def answer_early_then_busy(edge: Edge, wire: Wire) -> None:
    wire.sends_now(head("HTTP/1.1 103 Early Hints", "Link: </a>") + BUSY)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        (refuse, "connection_terminated"),
        (reset, "connection_terminated"),
        (answer_in_part, "connection_terminated"),
        (answer_nonsense, "http_protocol_error"),
        (answer_busy, "429"),
        (answer_endlessly, "500"),
        (answer_early_then_busy, "429"),
    ],
)
async def test_a_failed_request_goes_to_the_fallback_without_data_for_the_first(
    edge: Edge, second: Upstream, fails: Callable[[Edge, Wire], None], reason: str
) -> None:
    client = await edge.client()
    await client.sends(ask("/v1/chat?x=1").replace(b"Content-Type", b"X-Only-First: 1\r\nContent-Type"))
    first = await edge.upstream.accepts()
    request = await first.gets_request()
    fails(edge, first)
    other = await second.accepts()
    got = await other.gets_request()
    assert (request.first, got.first) == ("POST /v1/chat?x=1 HTTP/1.1", "POST /compatible/v1/chat?x=1 HTTP/1.1")
    assert (request["Authorization"], got["Authorization"]) == ("Bearer first", "Bearer second")
    assert (request["Host"], got["Host"]) == ("api.example.com", f"127.0.0.1:{second.port}")
    assert "X-Only-First" in request
    assert "X-Only-First" not in got
    same = ("Content-Length", "Content-Type", "X-Customer-Id", "X-Forwarded-Host", "X-Forwarded-For", "X-Request-Id")
    assert [request.all(name) for name in same] == [got.all(name) for name in same]
    assert (got.body, KEY in got.raw.decode(), "X-API-Key" in got) == (BODY, False, False)
    await other.sends(ok(b"second"))
    while (answer := await client.gets_answer()).status == 103:
        pass
    assert (answer.status, answer.body, answer.all("Retry-After")) == (200, b"second", [])
    assert edge.metrics("edge_fallbacks_total") == {("v1", reason): [1]}
    assert edge.count("edge_requests_total", "v1", "basic", "200") == 1
    assert edge.usage()["acme", "requests", "v1"] == 1
    # The connections on both sides stay usable.
    await client.sends(ask())
    first = await (edge.upstream.takes() if reason != "429" else first_again(first))
    assert (await first.tells(client, ok(b"first"))).body == b"first"


async def first_again(wire: Wire) -> Wire:
    """Return the first upstream's connection, which is kept because its dropped response was complete."""
    await wire.gets_request()
    return wire


async def test_a_refused_connection_leads_to_the_fallback(edge: Edge, second: Upstream) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    for body in (b"one", b"two"):  # The second request reuses a connection.
        await client.sends(ask(body=body))
        other = second.wires[0] if second.wires else await second.accepts()
        assert (await other.gets_request()).body == body
        assert (await other.tells(client, ok())).status == 200
    assert edge.metrics("edge_fallbacks_total") == {("v1", "connection_refused"): [2]}
    assert edge.count("edge_upstream_retries_total", "other") == 0


async def test_a_slow_first_upstream_leads_to_the_fallback(edge: Edge, second: Upstream) -> None:
    route(edge)["fallback"]["after"] = "50ms"
    client, first = await edge.forwards(ask())
    other = await second.takes()
    await first.gets_eof()
    # The second upstream has its own, usual time-out.
    assert edge.runtime.snapshot.services["other"].timeouts.response_head == 60
    (connection,) = edge.runtime.connections.clients
    assert connection.exchange is not None
    assert connection.deadline - connection.exchange.sent_at == pytest.approx(60)
    assert (await other.tells(client, ok())).status == 200
    assert edge.metrics("edge_fallbacks_total") == {("v1", "http_response_timeout"): [1]}


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "200 OK", "304 Not Modified"])
async def test_other_statuses_of_the_first_are_forwarded(edge: Edge, second: Upstream, status: str) -> None:
    answer = head(f"HTTP/1.1 {status}", *([] if "304" in status else ["Content-Length: 0"]))
    _, got = await edge.passes(ask(), answer)
    assert got.first.startswith(f"HTTP/1.1 {status[:3]}")
    assert not second.is_asked()


async def test_configured_statuses_lead_to_the_fallback(edge: Edge, second: Upstream) -> None:
    route(edge)["fallback"]["statuses"] = [404, "5xx"]
    _, got = await edge.passes(ask(), BUSY)
    assert (got.status, got["Retry-After"]) == (429, "9")
    client, first = await edge.forwards(ask())
    await first.sends(head("HTTP/1.1 404 Not Found", "Content-Length: 0"))
    assert (await (await second.takes()).tells(client, ok())).status == 200


async def test_a_failure_of_the_fallback_is_the_response(edge: Edge, second: Upstream) -> None:
    client, first = await edge.forwards(ask())
    await first.sends(BUSY)
    answer = await (await second.takes()).tells(client, head("HTTP/1.1 503 No", "Content-Length: 2") + b"no")
    assert (answer.status, answer.body) == (503, b"no")
    assert edge.count("edge_requests_total", "v1", "basic", "503") == 1


async def test_both_upstreams_refuse_connections(edge: Edge, second: Upstream) -> None:
    edge.upstream.refuses()
    second.refuses()
    client = await edge.client()
    is_fault(await client.asks(ask()), 502, "connection_refused")


async def test_the_first_response_is_used_if_the_fallback_has_no_room(edge: Edge, second: Upstream) -> None:
    edge.config["upstreams"]["other"]["breaker"] = {"pending": 1}
    waiting, first = await edge.forwards(ask())
    await first.sends(BUSY)
    other = await second.takes()
    client = await edge.client()
    await client.sends(ask())
    answer = await (await first_again(first)).tells(client, BUSY)
    assert (answer.status, answer["Retry-After"]) == (429, "9")
    assert (await other.tells(waiting, ok())).status == 200
    assert edge.metrics("edge_fallbacks_total") == {("v1", "429"): [1]}


async def test_a_begun_response_that_fails_is_cut_without_a_fallback(edge: Edge, second: Upstream) -> None:
    client, first = await edge.forwards(ask())
    await first.sends(head("HTTP/1.1 200 OK", "Content-Length: 100"), b"begun")
    await client.gets_head()
    first.aborts()
    await client.gets_reset()
    assert not second.is_asked()


async def test_the_total_time_of_a_request_ends_it_without_a_fallback(edge: Edge, second: Upstream) -> None:
    route(edge)["timeouts"] = {"total": "100ms"}
    client, _ = await edge.forwards(ask())
    is_fault(await client.gets_answer(), 504, "http_response_timeout")
    assert not second.is_asked()


# ---- bodies


@pytest.mark.parametrize("size", [100_000, 3 << 20], ids=["in memory", "on disk"])
async def test_a_body_is_held_until_the_request_is_over(edge: Edge, second: Upstream, size: int) -> None:
    body = os.urandom(size)
    client = await edge.client()
    await client.sends(ask(body=body)[:-10])
    await edge.settles()
    assert not edge.runtime.connections.upstreams
    await client.sends(body[-10:])
    first = await edge.upstream.accepts()
    assert is_same(await first.gets_request(), body)
    await first.sends(BUSY)
    other = await second.accepts()
    assert is_same(await other.gets_request(), body)
    assert (await other.tells(client, ok())).status == 200
    await edge.until(lambda: not edge.runtime.body_space.used_bytes)


def is_same(request: Message, body: bytes) -> bool:
    return hashlib.sha256(request.body).digest() == hashlib.sha256(body).digest()


async def test_a_failure_during_a_body_from_disk_leads_to_the_fallback(edge: Edge, second: Upstream) -> None:
    """The edge stops sending to the first upstream, and the second gets the whole body."""
    body = os.urandom(6 << 20)
    client = await edge.client()
    await client.sends(ask(body=body))
    first = await edge.upstream.accepts()
    await first.gets_bytes(300_000)
    first.aborts()
    other = await second.accepts()
    assert is_same(await other.gets_request(), body)
    assert (await other.tells(client, ok())).status == 200
    assert edge.usage()["acme", "requests", "v1"] == 1


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 10"])
async def test_a_body_beyond_the_buffer_goes_only_to_the_first(edge: Edge, second: Upstream, framing: str) -> None:
    route(edge)["fallback"]["buffer"] = "9B"
    client = await edge.client()
    await client.sends(head("POST /v1/x HTTP/1.1", *FIELDS, framing))
    first = await edge.upstream.accepts()
    await first.gets_head()
    await client.sends(b"a\r\n0123456789\r\n0\r\n\r\n" if "chunked" in framing else b"0123456789")
    assert b"0123456789" in await first.gets_bytes(10 if "Length" in framing else 20)
    answer = await first.tells(client, BUSY)
    assert (answer.status, answer.body) == (429, b"busy")
    assert not second.is_asked()


async def test_ask_for_usage_applies_to_the_fallback(edge: Edge, second: Upstream) -> None:
    edge.config["meters"] = {"all": {"count": "total_tokens"}}
    route(edge)["response_usage"] = {"format": "openai", "ask_for_usage": True}
    body = compact({"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Größe"}]})
    client, first = await edge.forwards(ask("/v1/chat/completions", body))
    await first.sends(BUSY)
    other = await second.accepts()
    got = await other.gets_request()
    assert got.body == body[:-1] + b',"stream_options":{"include_usage":true}}'
    await other.sends(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(CHAT_STREAM), CHAT_STREAM))
    assert (await client.gets_answer()).body == WITHOUT
    assert edge.usage() == {("acme", "all", "v1"): 29}


async def test_a_connection_with_half_a_body_serves_no_other_request(edge: Edge, second: Upstream) -> None:
    """The first upstream answers before it has read the whole body. On its connection, it would read a further request
    as the rest of the body, and the rest of the body might be read as a forged request."""
    client = await edge.client()
    await client.sends(ask(body=b"x" * (6 << 20)))
    first = await edge.upstream.accepts()
    await first.gets_head()
    await first.gets_bytes(300_000)
    await first.sends(BUSY)
    assert (await (await second.takes()).tells(client, ok())).status == 200
    assert not edge.endpoint(route="/v1/x").idle
    assert set(await first.gets_cut()) == {ord("x")}


async def test_a_body_on_a_slow_disk_is_sent_once(
    edge: Edge, second: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    route(edge)["fallback"]["after"] = "50ms"
    go_on, write_all = threading.Event(), body_file.write_all

    def write_slowly(file: IO[bytes], data: bytes) -> None:
        assert go_on.wait(10)
        write_all(file, data)

    monkeypatch.setattr(body_file, "write_all", write_slowly)
    body = os.urandom(300_000)
    client = await edge.client()
    await client.sends(ask(body=body))
    (connection,) = edge.runtime.connections.clients
    await edge.until(lambda: connection.exchange and connection.exchange.bytes_in == len(body))
    assert (
        connection.deadline > monotonic() + 30
    )  # The deadline of the body applies, because no upstream has the request yet.
    go_on.set()
    first = await edge.upstream.accepts()
    assert is_same(await first.gets_request(), body)
    assert (await first.tells(client, ok())).status == 200
    assert not second.is_asked()


@pytest.mark.parametrize("why", ["chunked", "the second is full"])
async def test_first_upstream_has_its_full_time_without_a_usable_fallback(
    edge: Edge, second: Upstream, why: str
) -> None:
    route(edge)["fallback"]["after"] = "50ms"
    edge.config["upstreams"]["other"]["breaker"] = {"pending": 1}
    client = await edge.client()
    breaker = edge.runtime.snapshot.services["other"].breaker
    assert breaker is not None
    if why == "chunked":
        await client.sends(head("POST /v1/x HTTP/1.1", *FIELDS, "Transfer-Encoding: chunked"))
        first = await edge.upstream.accepts()
        await first.gets_head()
        await client.reaches(first, b"3\r\nabc\r\n")
        await client.reaches(first, b"0\r\n\r\n")
    else:
        breaker.enter()
        await client.sends(ask())
        first = await edge.upstream.takes()
    (connection,) = edge.runtime.connections.clients
    await edge.until(lambda: connection.deadline > monotonic() + 30, "the first upstream keeps its usual time")
    assert (await first.tells(client, ok(b"late"))).body == b"late"
    assert edge.metrics("edge_fallbacks_total") == {}
    if why != "chunked":
        breaker.leave()


async def test_the_signature_of_a_chunked_body_is_a_dash_at_both_upstreams(edge: Edge, second: Upstream) -> None:
    """The chunked body arrived together with its head."""
    edge.config["stamp_secret"], edge.config["stamp_signature"] = "0123456789abcdef0123456789abcdef", "v2"
    client = await edge.client()
    await client.sends(head("POST /v1/x HTTP/1.1", *FIELDS, "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n")
    first = await edge.upstream.accepts()
    request = await first.gets_request()
    await first.sends(BUSY)
    got = await (await second.accepts()).gets_request()
    assert [each["X-Edge-Signature"].rpartition("=")[2] for each in (request, got)] == ["-", "-"]


# ---- the choice of the upstream


async def test_an_ejected_first_upstream_is_skipped(edge: Edge, second: Upstream) -> None:
    edge.config["upstreams"]["api"]["eject"] = {"errors": 2, "for": "1min"}
    edge.upstream.answers(lambda request: BUSY)
    second.answers(lambda request: ok(b"second"))
    client = await edge.client()
    assert [(await client.asks(ask())).body for _ in range(5)] == [b"second"] * 5
    assert len(edge.upstream.requests) == 2
    assert edge.metrics("edge_fallbacks_total") == {("v1", "429"): [2], ("v1", "ejected"): [3]}
    # If the second is down, the first gets the request as without a fallback.
    other = edge.runtime.snapshot.services["other"]
    other.endpoints[0].state = DOWN
    other._redraw()
    answer = await client.asks(ask())
    assert (answer.status, answer["Retry-After"], len(edge.upstream.requests)) == (429, "9", 3)


async def test_a_dead_fallback_does_not_block_a_recovered_first_upstream(edge: Edge, second: Upstream) -> None:
    second.refuses()
    answers = [BUSY] * 5 + [ok(b"well again")] * 2
    edge.upstream.answers(lambda request: answers.pop(0))
    client = await edge.client()
    assert [(await client.asks(ask())).status for _ in range(7)] == [502] * 5 + [200] * 2


async def test_a_repeatable_request_is_retried_at_the_first_before_the_fallback(edge: Edge, second: Upstream) -> None:
    client = await edge.client()
    await client.sends(get("/v1/x", f"X-API-Key: {KEY}"))
    for _ in range(2):
        (await edge.upstream.takes()).aborts()
    assert (await (await second.takes()).tells(client, ok())).status == 200
    assert edge.count("edge_upstream_retries_total", "api") == 1


@pytest.mark.parametrize("which", ["api", "other"])
async def test_forward_key_applies_to_each_upstream_separately(edge: Edge, second: Upstream, which: str) -> None:
    edge.config["upstreams"][which]["forward_key"] = True
    client = await edge.client()
    await client.sends(ask())
    first = await edge.upstream.accepts()
    request = await first.gets_request()
    await first.sends(BUSY)
    got = await (await second.accepts()).gets_request()
    assert (request.all("X-API-Key"), got.all("X-API-Key")) == (([KEY], []) if which == "api" else ([], [KEY]))


async def test_an_upgrade_has_no_fallback(edge: Edge, second: Upstream) -> None:
    upgrade = ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: a")
    client, first = await edge.forwards(get("/v1/x", f"X-API-Key: {KEY}", *upgrade))
    assert (await first.tells(client, BUSY)).status == 429
    assert not second.is_asked()


async def test_a_fallback_from_http2_to_http1(edge: Edge, second: Upstream) -> None:
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    client = await edge.client()
    await client.sends(ask())
    first = await Http2Server(await edge.upstream.accepts()).begins()
    fields, body, _ = await first.gets_request(1)
    assert (fields["authorization"], body) == ("Bearer first", BODY)
    await first.sends_head(1, 503, ended=True)
    other = await second.accepts()
    got = await other.gets_request()
    assert (got["Authorization"], got.body) == ("Bearer second", BODY)
    assert (await other.tells(client, ok())).status == 200


async def test_a_trace_has_spans_of_both_upstreams(
    edge: Edge, second: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.observation.span_buffer.SpanBuffer.flush", lambda self: None)
    edge.config["tracing"] = {"endpoint": "http://127.0.0.1:4318", "sample": "100%"}
    client = await edge.client()
    await client.sends(ask().replace(b"Host:", SAMPLED.encode() + b"\r\nHost:"))
    first = await edge.upstream.accepts()
    before = (await first.gets_request())["traceparent"]
    await first.sends(BUSY)
    other = await second.accepts()
    after = (await other.gets_request())["traceparent"]
    await other.tells(client, ok())
    server, *attempts = take(edge)
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    sent = [attempt for attempt in attempts if attempt.span_id.hex() in (before.split("-")[2], after.split("-")[2])]
    assert [attributes(attempt)["server.port"] for attempt in sent] == [edge.upstream.port, second.port]
    assert [attributes(attempt).get("error.type") for attempt in sent] == ["429", None]
