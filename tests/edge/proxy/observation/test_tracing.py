"""Tracing in a worker: the recorded requests, the content of their spans, and data that spans never contain."""

import re
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from edgeproxy.edge.messages import SpansEnded
from edgeproxy.edge.proxy.observation.span_buffer import MESSAGE_BYTES, PENDING_BYTES_MAX, SpanBuffer
from tests.edge.proxy.sharing import LIMIT, Shared
from tests.support.transcript import EXPIRED, KEY, Edge, chunks, get, head, ok, post
from tests.support.wire import Cut, Message

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{TRACE}-{PARENT}-00"
SENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])")
ERROR = 2
SERVER, CLIENT, INTERNAL = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL


@pytest.fixture
def edge(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> Edge:
    monkeypatch.setattr(SpanBuffer, "flush", lambda self: None)  # A sweep would hand them over.
    traces(edge, sample="100%")
    return edge


def traces(edge: Edge, **settings: Any) -> None:
    edge.config["tracing"] = {"endpoint": "http://127.0.0.1:4318", **settings}


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span. Each name occurs once."""
    found = {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in span.attributes
    }
    assert len(found) == len(span.attributes)
    return found


def take(edge: Edge) -> list[Any]:
    """Return the spans of requests that ended since the last call, in the order of their addition."""
    message = edge.runtime.spans.take()
    if message is None:
        return []
    spans = list(ScopeSpans.FromString(message.spans).spans)
    assert (message.count, message.dropped) == (len(spans), 0)
    for span in spans:
        assert len(span.trace_id) == 16
        assert len(span.span_id) == 8
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    assert len({span.span_id for span in spans}) == len(spans)
    return spans


def named(spans: Iterable[Any]) -> dict[str, Any]:
    """Return spans by name. Each name occurs once."""
    found = {span.name: span for span in spans}
    assert len(found) == len(list(spans))
    return found


def sent(edge: Edge) -> re.Match[str]:
    """Return the traceparent that the upstream received last."""
    match = SENT.fullmatch(edge.upstream.requests[-1]["traceparent"])
    assert match is not None
    return match


async def asks(edge: Edge, request: bytes, to: str = "GET") -> int:
    """Send a request on a new connection and return the status of its answer."""
    answer = await (await edge.client()).asks(request, to=to)
    return answer.status


async def test_request_span_contains_decision_and_attempt_spans(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    assert await asks(edge, get("/v1/x?token=hush", f"X-API-Key: {KEY}", "User-Agent: somebody")) == 200
    spans = named(take(edge))
    request, decision, attempt = spans["GET /v1/*"], spans["limit decision"], spans["GET"]
    assert [each.kind for each in (request, decision, attempt)] == [SERVER, INTERNAL, CLIENT]
    assert request.parent_span_id == b""
    assert decision.parent_span_id == attempt.parent_span_id == request.span_id
    assert request.trace_id == decision.trace_id == attempt.trace_id
    trace_id, span_id, flags = sent(edge).groups()
    assert (trace_id, span_id, flags) == (request.trace_id.hex(), attempt.span_id.hex(), "01")
    said = attributes(request)
    assert said.pop("edgeproxy.request_id") == edge.upstream.requests[-1]["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{16}", said.pop("enduser.pseudo.id"))
    assert said == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/v1/*",
        "url.scheme": "http",
        "url.path": "/v1/x",
        "network.protocol.version": "1.1",
        "server.address": "edge.test",
        "edgeproxy.route": "v1",
        "edgeproxy.tier": "basic",
    }
    assert attributes(decision) == {"edgeproxy.limit.name": "basic", "edgeproxy.limit.refused": False}
    port = edge.upstream.port
    assert attributes(attempt) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.full": f"http://127.0.0.1:{port}/v1/x",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "edgeproxy.upstream": "api",
        "edgeproxy.upstream.region": "test",
    }
    assert request.start_time_unix_nano <= attempt.start_time_unix_nano <= attempt.end_time_unix_nano


async def test_spans_contain_no_secret_or_personal_data_of_a_request(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(b"planted-answer", "X-Answer: planted"))
    fields = ("Cookie: planted", "User-Agent: planted", "Authorization: Bearer planted", "Referer: http://planted")
    for path in ("/public/x?planted=planted", "/public/%70", "/v1/x?planted#planted"):
        await asks(edge, get(path, *fields, "X-Forwarded-For: 203.0.113.77"))
    await asks(edge, get("/v1/x?planted", f"X-API-Key: {KEY}"))
    await asks(edge, get("/v1/x?planted", f"X-API-Key: {EXPIRED}"))
    message = edge.runtime.spans.take()
    assert message is not None
    assert message.count >= 10
    for secret in (b"planted", b"203.0.113.77", b"127.0.0.1\x00", KEY.encode(), EXPIRED.encode(), b"acme"):
        assert secret not in message.spans


async def test_span_has_customer_and_address_only_if_configured(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    traces(edge, sample="100%", customer="id", client_address=True)
    await asks(edge, get("/v1/x", f"X-API-Key: {KEY}"))
    said = attributes(named(take(edge))["GET /v1/*"])
    assert (said["enduser.id"], said["client.address"]) == ("acme", "127.0.0.1")
    assert "enduser.pseudo.id" not in said
    traces(edge, sample="100%", customer="none")
    await edge.reloads()
    await asks(edge, get("/v1/x", f"X-API-Key: {KEY}"))
    assert not [name for name in attributes(named(take(edge))["GET /v1/*"]) if name.startswith(("enduser", "client"))]


# ---- recording decisions


@pytest.mark.parametrize(
    ("settings", "field", "recorded", "flags"),
    [
        ({"sample": "0%"}, None, False, "00"),
        ({"sample": "0%"}, SAMPLED, True, "01"),
        ({"sample": "0%"}, UNSAMPLED, False, "00"),
        ({"sample": "100%"}, UNSAMPLED, False, "00"),
        ({"sample": "0%", "parent": "ignore"}, SAMPLED, False, "00"),
        ({"sample": "100%", "parent": "ignore"}, UNSAMPLED, True, "01"),
        ({"sample": "100%"}, f"traceparent: 00-{TRACE}-{PARENT}-03", True, "03"),
    ],
)
async def test_sampling_decides_on_recording_and_the_trace_flags(
    edge: Edge, settings: dict[str, Any], field: str | None, recorded: bool, flags: str
) -> None:
    edge.upstream.answers(lambda request: ok())
    traces(edge, **settings)
    await asks(edge, get("/public/", *([field] if field else [])))
    spans = take(edge)
    assert bool(spans) is recorded
    told = sent(edge)
    assert told[3] == flags
    if field is not None:
        assert told[1] == TRACE
        assert told[2] != PARENT
        assert not spans or (spans[0].parent_span_id.hex(), spans[0].trace_id.hex()) == (PARENT, TRACE)


async def test_a_share_is_drawn_of_the_traces_that_begin_here(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    traces(edge, sample="30%")
    client = await edge.client()
    for _ in range(400):
        await client.asks(get())
    drawn = [SENT.fullmatch(request["traceparent"]) for request in edge.upstream.requests]
    flags = [match[3] for match in drawn if match]
    assert 60 < flags.count("01") < 180  # 120 are expected; 6 standard deviations
    assert {span.trace_id.hex() for span in take(edge)} == {match[1] for match in drawn if match and match[3] == "01"}


async def test_sampled_parents_are_limited_by_parent_rate_unless_trusted(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    traces(edge, sample="0%", parent_rate="3/h")
    client = await edge.client()
    for _ in range(5):
        await client.asks(get("/public/", SAMPLED))
    assert len([span for span in take(edge) if span.kind == SERVER]) == 3
    assert sent(edge)[3] == "00"
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    await edge.reloads()
    client = await edge.client()
    for _ in range(5):
        await client.asks(get("/public/", SAMPLED))
    assert len([span for span in take(edge) if span.kind == SERVER]) == 5


async def test_without_tracing_nothing_is_recorded_and_traces_begin_as_ever(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    del edge.config["tracing"]
    await asks(edge, get())
    assert sent(edge)[3] == "01"
    assert edge.runtime.spans.take() is None
    traces(edge, sample="0%")
    await edge.reloads()
    await asks(edge, get())
    assert sent(edge)[3] == "00"


# ---- spans


async def test_answer_of_the_edge_itself_has_a_span(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min", "name": "minute"}]}
    edge.upstream.answers(lambda request: ok())
    await asks(edge, get("/v1/x", f"X-API-Key: {KEY}"))
    take(edge)
    assert await asks(edge, get("/v1/x", f"X-API-Key: {KEY}", SAMPLED)) == 429
    spans = named(take(edge))
    assert set(spans) == {"GET /v1/*", "limit decision"}
    assert spans["GET /v1/*"].trace_id.hex() == TRACE
    assert attributes(spans["GET /v1/*"])["http.response.status_code"] == 429
    assert spans["GET /v1/*"].status.code != ERROR  # It is the client's fault (semantic conventions, HTTP server).
    assert attributes(spans["limit decision"]) == {"edgeproxy.limit.name": "minute", "edgeproxy.limit.refused": True}
    for request, status, name in (
        (get("/v1/x"), 401, "GET /v1/*"),
        (get("/nowhere"), 404, "GET"),
        (head("BREW /public/ HTTP/1.1", "Host: h"), 501, "_OTHER"),
        (head("GET /public/ HTTP/1.1", "Host: h", "Bad Name: planted", SAMPLED), 400, "_OTHER"),
    ):
        assert await asks(edge, request) in (status, 200)
        spans = named(take(edge))
        assert name in spans or status == 501


async def test_each_attempt_has_a_span_that_its_traceparent_names(edge: Edge) -> None:
    asked: list[re.Match[str]] = []

    def fail_once(request: Message) -> bytes:
        match = SENT.fullmatch(request["traceparent"])
        assert match is not None
        asked.append(match)
        if len(asked) == 1:
            raise Cut("the first attempt comes to nothing")
        return ok()

    edge.upstream.answers(fail_once)
    edge.adds_endpoint().answers(fail_once)
    assert await asks(edge, get("/public/", SAMPLED)) == 200
    spans = take(edge)
    attempts = [span for span in spans if span.kind == CLIENT]
    assert [span.span_id.hex() for span in attempts] == [match[2] for match in asked]
    assert {match[1] for match in asked} == {TRACE}
    assert [attributes(span).get("http.request.resend_count") for span in attempts] == [None, 1]
    assert [span.status.code for span in attempts] == [ERROR, 0]
    assert attributes(attempts[0])["error.type"] == "connection_terminated"
    assert spans[0].status.code != ERROR


async def test_an_upstream_that_fails_is_an_error_of_the_request(edge: Edge) -> None:
    def fail(request: Message) -> bytes:
        raise Cut("no attempt comes to anything")

    edge.upstream.answers(fail)
    edge.config["upstreams"]["api"]["retry"] = {"attempts": 1}
    assert await asks(edge, get()) == 502
    spans = named(take(edge))
    for name in ("GET /public/*", "GET"):
        assert spans[name].status.code == ERROR
        assert attributes(spans[name])["error.type"] == "connection_terminated"
    assert attributes(spans["GET /public/*"])["http.response.status_code"] == 502


async def test_spans_end_with_the_response_and_a_leaving_client_is_no_error(edge: Edge) -> None:
    client, upstream = await edge.forwards(get("/public/"))
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    await client.gets_head()
    assert take(edge) == []
    await upstream.sends(chunks(b"a"))
    assert await client.gets_until(b"0\r\n\r\n")
    await edge.until(lambda: edge.runtime.spans._spans, "the span has ended")
    assert attributes(named(take(edge))["GET"])["http.response.status_code"] == 200
    client = await edge.client()
    await client.sends(get())
    await upstream.gets_request()
    client.closes()
    await edge.until(lambda: edge.runtime.spans._spans, "the span has ended")
    request = named(take(edge))["GET /public/*"]
    assert attributes(request)["error.type"] == "client_gone"
    assert request.status.code != ERROR
    await upstream.gets_eof()


async def test_the_wait_for_the_hub_is_a_span(edge: Edge) -> None:
    edge.uses = []
    edge.config["tiers"]["basic"] = {"limits": [{"name": "basic", "rate": f"{LIMIT}/min"}], "concurrency": 5}
    shared = Shared(edge)
    upstream = await shared.begins()
    take(edge)
    client, gate = await shared.asked(get("/v1/waits", f"X-API-Key: {KEY}"))
    shared.grants(gate)
    await upstream.gets_request()
    assert (await upstream.tells(client, ok())).status == 200
    spans = named(take(edge))
    request, wait, attempt = spans["GET /v1/*"], spans["hub wait"], spans["GET"]
    assert wait.parent_span_id == request.span_id
    assert request.start_time_unix_nano <= wait.start_time_unix_nano <= wait.end_time_unix_nano
    assert wait.end_time_unix_nano <= attempt.start_time_unix_nano


async def test_tokens_and_model_follow_the_gen_ai_conventions(edge: Edge) -> None:
    edge.config["routes"][1]["response_usage"] = "openai"
    edge.config["meters"] = {"tokens": {"count": "total_tokens", "missing": 0}}
    said = {"model": "gpt-x", "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
    edge.upstream.answers(lambda request: ok(orjson.dumps(said), "Content-Type: application/json"))
    assert await asks(edge, post(b"{}", "/public/chat/completions"), "POST") == 200
    (attempt,) = [span for span in take(edge) if span.kind == CLIENT]
    assert attempt.name == "chat gpt-x"
    found = {name: value for name, value in attributes(attempt).items() if name.startswith("gen_ai.")}
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "gpt-x",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.output_tokens": 5,
    }


async def test_the_access_log_names_trace_and_span_of_recorded_requests_only(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    file = edge._folder / "access.log"
    edge.config["access_log"] = str(file)
    await asks(edge, get("/public/", SAMPLED))
    await asks(edge, get("/public/", UNSAMPLED))
    await edge.until(lambda: file.exists() and file.read_bytes().count(b"\n") == 2)
    recorded, other = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    request = named(take(edge))["GET /public/*"]
    assert (recorded["trace_id"], recorded["span_id"]) == (TRACE, request.span_id.hex())
    assert not {"trace_id", "span_id"} & set(other)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        (["tracestate: a=1", "tracestate: b=2"], "a=1,b=2"),
        (["tracestate: " + "a" * 513], ""),
        (["tracestate: \xff=\xfe"], None),
    ],
)
async def test_span_keeps_only_a_valid_tracestate(edge: Edge, fields: list[str], state: str | None) -> None:
    edge.upstream.answers(lambda request: ok())
    await asks(edge, get("/public/", SAMPLED, *fields))
    spans = take(edge)
    assert spans or state is None
    if state is not None:
        assert spans[0].trace_state == state


@pytest.mark.parametrize(
    "path", [b"/public/\xff\xfe", b"/public/" + b"x" * 5000, b"/public/%00%0a", b"/public/\xed\xa0\x80"]
)
async def test_no_path_makes_a_span_that_cannot_be_read(edge: Edge, path: bytes) -> None:
    edge.upstream.answers(lambda request: ok())
    await asks(edge, b"GET " + path + b" HTTP/1.1\r\nHost: h\xff\r\n\r\n")
    for span in take(edge):
        assert len(attributes(span).get("url.path", "")) < 4 * 512


# ---- on their way to the supervisor


def test_spans_beyond_the_buffer_are_dropped_and_counted() -> None:
    taken: list[SpansEnded] = []
    takes = False

    def offer(message: SpansEnded) -> bool:
        if takes:
            taken.append(message)
        return takes

    buffer = SpanBuffer(offer)
    piece = b"x" * (MESSAGE_BYTES // 2)
    for _ in range(2 * PENDING_BYTES_MAX // len(piece)):
        buffer.add(piece, 3)
    held = PENDING_BYTES_MAX // len(piece)
    takes = True
    buffer.flush()
    buffer.flush()
    assert [(len(each.spans), each.count, each.dropped) for each in taken] == [(PENDING_BYTES_MAX, 3 * held, 3 * held)]
    buffer.add(b"a", 1)
    buffer.add(b"b", 1)
    assert buffer.take() == SpansEnded(b"ab", 2, 0)
    assert buffer.take() is None
