"""What the upstream is told, and what clients cannot make it believe."""

import hashlib
import hmac
import re
import time
import uuid

import pytest

from edgeproxy.http1 import stamps
from tests.support.transcript import KEY, READER, UNLIMITED, Edge, get, head, ok, post
from tests.support.wire import Message

TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
SECRET = "a secret of the edge and its upstreams"


def names(message: Message) -> list[str]:
    return [name.lower() for name, _ in message.fields]


async def passes(edge: Edge, *fields: str, path: str = "/v1/x", answer: bytes = b"") -> tuple[Message, Message]:
    request = head(f"GET {path} HTTP/1.1", "Host: edge.test", *fields)
    return await edge.passes(request, answer or ok())


# ---- the stamps themselves


async def test_the_whole_head_that_an_upstream_gets(edge: Edge) -> None:
    request, answer = await passes(edge, "Accept: */*", f"Authorization: Bearer {KEY}", "X-Thing: 1")
    assert request.first == "GET /v1/x HTTP/1.1"
    fields = dict(request.fields)
    assert len(fields) == len(request.fields), "no name twice"
    trace = fields.pop("traceparent")
    request_id = fields.pop("X-Request-Id")
    assert TRACE.fullmatch(trace)
    assert uuid.UUID(request_id).version == 7
    assert fields == {
        "Host": "edge.test",
        "Accept": "*/*",
        "X-Thing": "1",
        "Via": "1.1 edgeproxy",
        "X-Forwarded-Host": "edge.test",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Edge-Region": "test",
        "X-Customer-Id": "acme",
        "X-Customer-Tier": "basic",
    }
    assert answer["X-Request-Id"] == request_id


async def test_every_request_has_an_id_and_a_trace_of_its_own(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    n = 300
    await client.sends(get() * n)
    ids = [(await client.gets_answer())["X-Request-Id"] for _ in range(n)]
    assert len(set(ids)) == n
    assert ids == [request["X-Request-Id"] for request in edge.upstream.requests]
    assert len({request["traceparent"] for request in edge.upstream.requests}) == n


async def test_fields_keep_their_order_their_case_and_their_repetitions(edge: Edge) -> None:
    request, _ = await passes(
        edge, "x-API-key: " + UNLIMITED, "X-b: 2", "x-A: 1", "X-b: 3", "Cookie: a=b", "cookie: c=d", "X-Empty:"
    )
    sent = [field for field in request.fields if field[0].lower() in ("x-a", "x-b", "cookie", "x-empty")]
    assert sent == [("X-b", "2"), ("x-A", "1"), ("X-b", "3"), ("Cookie", "a=b"), ("cookie", "c=d"), ("X-Empty", "")]


async def test_without_a_key_there_is_no_customer(edge: Edge) -> None:
    request, _ = await passes(edge, path="/public/x")
    assert "X-Customer-Id" not in request
    assert "X-Customer-Tier" not in request
    assert request["X-Edge-Region"] == "test"


async def test_without_a_key_the_tier_is_anonymous_where_there_is_one(edge: Edge) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "100/min"}]}
    for path in ("/public/x", "/maybe/x"):
        request, _ = await passes(edge, path=path)
        assert "X-Customer-Id" not in request
        assert request["X-Customer-Tier"] == "anonymous"


# ---- what clients must not set


STAMPS = {
    "X-Customer-Id": "root",
    "X-Customer-Tier": "enterprise",
    "X-Edge-Region": "mars",
    "X-Edge-Signature": "t=1,v1=00",
    "X-Request-Id": "mine",
    "X-Forwarded-For": "203.0.113.66",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Host": "bank.example",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "203.0.113.66",
    "Forwarded": "for=203.0.113.66",
}


@pytest.mark.parametrize("spelling", ["plain", "lower", "upper", "underscore", "mixed"])
@pytest.mark.parametrize("path", ["/v1/x", "/public/x"])
async def test_stamps_that_a_client_sends_never_pass(edge: Edge, spelling: str, path: str) -> None:
    spell = {
        "plain": lambda name: name,
        "lower": lambda name: name.lower(),
        "upper": lambda name: name.upper(),
        "underscore": lambda name: name.replace("-", "_"),
        "mixed": lambda name: name.replace("-", "_", 1).swapcase(),
    }[spelling]
    fields = [f"{spell(name)}: {value}" for name, value in STAMPS.items()]
    request, answer = await passes(edge, *fields, f"X-API-Key: {UNLIMITED}", path=path)
    for name, forged in STAMPS.items():
        assert forged not in request.all(name), name
    assert not [name for name in names(request) if "_" in name]
    assert b"root" not in request.raw
    assert b"203.0.113.66" not in request.raw
    assert b"mars" not in request.raw
    assert answer["X-Request-Id"] != "mine"


async def test_no_client_can_send_what_the_edge_adds(edge: Edge) -> None:
    """A stamp that is written past the table in http1/stamps.py could be forged: it is found by what arrives."""
    edge.config["stamp_secret"] = SECRET
    key = f"X-API-Key: {KEY}"
    request, _ = await passes(edge, key)
    added = set(names(request)) - {"host"}
    assert {name.decode().lower() for name in stamps.STAMPS} <= added
    added.remove("via")  # RFC 9110 section 7.6.3: continued.
    for forged in (added, [name.replace("-", "_") for name in added if "-" in name]):
        request, _ = await passes(edge, key, *[f"{name}: forged" for name in forged])
        assert b"forged" not in request.raw
        assert {*names(request)} == {*added, "host", "via"}


async def test_other_names_with_underscores_pass(edge: Edge) -> None:
    request, _ = await passes(edge, "my_field: 1", path="/public/x")
    assert request["my_field"] == "1"


async def test_underscore_spellings_of_the_key_and_of_framing_do_not_pass(edge: Edge) -> None:
    """A server that hands fields on as variables takes them for the real ones."""
    fields = ("X_API_Key: k", "Content_Length: 5", "Transfer_Encoding: chunked", "Trace_Parent: x")
    request, _ = await passes(edge, *fields, path="/public/x")
    assert not {"x_api_key", "content_length", "transfer_encoding"} & set(names(request))


async def test_connection_cannot_name_a_stamp_away(edge: Edge) -> None:
    """RFC 9110 section 7.6.1: Connection removes fields of the message that was received, not ours."""
    tokens = ", ".join(("keep-alive", *STAMPS, "Host", "Content-Length", "Via", "traceparent", "X-Mine"))
    client = await edge.client()
    fields = (f"Connection: {tokens}", "X-Mine: 1", f"X-API-Key: {KEY}", "Content-Length: 3")
    await client.sends(head("POST /v1/x HTTP/1.1", "Host: edge.test", *fields) + b"abc")
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_request()
    assert request.body == b"abc"
    assert "X-Mine" not in request
    assert "Connection" not in request
    for name in ("Host", "Via", "X-Customer-Id", "X-Customer-Tier", "X-Edge-Region", "X-Forwarded-For"):
        assert name in request, name
    assert len(request.all("X-Request-Id")) == len(request.all("traceparent")) == 1
    await upstream.sends(ok())
    await client.gets_answer()


# ---- hop-by-hop fields, both ways


async def test_hop_by_hop_fields_of_a_request_end_here(edge: Edge) -> None:
    """RFC 9110 section 7.6.1."""
    request, _ = await passes(
        edge,
        "Connection: X-Hop, keep-alive",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "TE: gzip",
        "Trailer: X-Sum",
        "Upgrade: h2c",
        "X-Stays: 1",
        path="/public/x",
    )
    gone = {"connection", "x-hop", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade"}
    assert not gone & set(names(request))
    assert request["X-Stays"] == "1"


async def test_hop_by_hop_fields_of_an_answer_end_here(edge: Edge) -> None:
    for framing in (("Content-Length: 5",), ("Content-Length: 5", "Server: x")):
        answered = head(
            "HTTP/1.1 200 OK",
            *framing,
            "Connection: X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Authenticate: Basic",
            "Upgrade: h2c",
            "X-Stays: 1",
        )
        _, answer = await passes(edge, path="/public/x", answer=answered + b"hello")
        assert not {"connection", "x-hop", "keep-alive", "proxy-authenticate", "upgrade"} & set(names(answer))
        assert answer["X-Stays"] == "1"
        assert answer["Content-Length"] == "5"


async def test_fields_of_an_answer_pass_as_they_are(edge: Edge) -> None:
    answered = ok(b"", "Set-Cookie: a=b", "Set-Cookie: c=d", "server: x", "X-Empty:", "Via: 1.1 other")
    _, answer = await passes(edge, path="/public/x", answer=answered)
    assert answer.all("Set-Cookie") == ["a=b", "c=d"]
    assert ("server", "x") in answer.fields
    assert answer["X-Empty"] == ""


async def test_an_upstreams_own_request_id_is_replaced(edge: Edge) -> None:
    """What the client reads is what the logs say."""
    for answered in (ok(b"a", "X-Request-Id: theirs"), ok(b"a", "X-Request-Id: theirs", "Connection: close")):
        request, answer = await passes(edge, path="/public/x", answer=answered)
        assert answer["X-Request-Id"] == request["X-Request-Id"]


# ---- keys


async def test_the_key_itself_goes_no_further(edge: Edge) -> None:
    for fields in (
        (f"Authorization: Bearer {UNLIMITED}",),
        (f"authorization: bearer {UNLIMITED}",),
        (f"X-API-Key: {UNLIMITED}",),
        (f"X-API-Key: {READER}", f"Authorization: Bearer {UNLIMITED}"),
    ):
        request, _ = await passes(edge, *fields)
        assert UNLIMITED.encode() not in request.raw
        assert READER.encode() not in request.raw
        assert "Authorization" not in request
        assert "X-API-Key" not in request


async def test_bearer_wins_over_the_other_field(edge: Edge) -> None:
    request, _ = await passes(edge, f"X-API-Key: {UNLIMITED}", f"Authorization: Bearer {KEY}")
    assert request["X-Customer-Id"] == "acme"


async def test_authorization_of_another_scheme_is_the_upstreams_affair(edge: Edge) -> None:
    request, _ = await passes(edge, f"X-API-Key: {KEY}", "Authorization: Basic eDp5")
    assert request["Authorization"] == "Basic eDp5"
    assert "X-API-Key" not in request


async def test_an_upstream_with_forward_key_is_sent_the_key(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["forward_key"] = True
    for name, value in (("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)):
        request, _ = await passes(edge, f"{name}: {value}")
        assert request[name] == value
        assert request["X-Customer-Id"] == "acme"


async def test_a_route_without_authentication_passes_credentials_on(edge: Edge) -> None:
    """The edge has no business with them, whether it knows them or not."""
    for value in (f"Bearer {KEY}", "Bearer unknown", "Basic eDp5", "Digest x"):
        request, answer = await passes(edge, f"Authorization: {value}", path="/public/x")
        assert request["Authorization"] == value
        assert "X-Customer-Id" not in request
        assert answer.status == 200
    request, _ = await passes(edge, "X-API-Key: whatever", path="/public/x")
    assert request["X-API-Key"] == "whatever"


async def test_an_optional_key_makes_a_customer_and_goes_no_further(edge: Edge) -> None:
    request, _ = await passes(edge, f"X-API-Key: {KEY}", path="/maybe/x")
    assert request["X-Customer-Id"] == "acme"
    assert "X-API-Key" not in request
    request, _ = await passes(edge, path="/maybe/x")
    assert "X-Customer-Id" not in request


# ---- traces and Via


async def test_a_trace_is_continued(edge: Edge) -> None:
    """W3C Trace Context section 3.2: the trace id and flags stay, the parent is this edge."""
    came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request, _ = await passes(edge, f"traceparent: {came}", "tracestate: a=1,b=2", path="/public/x")
    match = TRACE.fullmatch(request["traceparent"])
    assert match is not None
    assert match[1] == "0af7651916cd43dd8448eb211c80319c"
    assert match[2] != "b7ad6b7169203331"
    assert match[3] == "01"
    assert request["tracestate"] == "a=1,b=2"


async def test_the_flags_of_a_trace_that_is_not_sampled_stay(edge: Edge) -> None:
    came = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    request, _ = await passes(edge, f"Traceparent: {came}", path="/public/x")
    assert request["traceparent"].endswith("-00")


@pytest.mark.parametrize(
    "came",
    [
        "",
        "garbage",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
    ],
)
async def test_a_trace_that_is_none_is_begun_anew_and_its_state_dropped(edge: Edge, came: str) -> None:
    request, answer = await passes(edge, f"traceparent: {came}", "tracestate: a=1", path="/public/x")
    match = TRACE.fullmatch(request["traceparent"])
    assert match is not None
    assert match[1].lower() != "0af7651916cd43dd8448eb211c80319c"
    assert "tracestate" not in request
    assert answer.status == 200


async def test_tracestate_without_a_trace_is_dropped(edge: Edge) -> None:
    request, _ = await passes(edge, "tracestate: a=1", path="/public/x")
    assert "tracestate" not in request


async def test_via_is_continued(edge: Edge) -> None:
    """RFC 9110 section 7.6.3."""
    request, _ = await passes(edge, "Via: 1.0 fred", "Via: 1.1 other", path="/public/x")
    assert request["Via"] == "1.0 fred, 1.1 other, 1.1 edgeproxy"


async def test_via_tells_the_version_that_the_edge_was_spoken_to_in(edge: Edge) -> None:
    request, _ = await edge.passes(b"GET /public/ HTTP/1.0\r\nHost: h\r\n\r\n", ok())
    assert request["Via"] == "1.0 edgeproxy"


# ---- the signature


async def test_the_signature_proves_the_stamps(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await passes(edge, f"X-API-Key: {KEY}", "X-Edge-Signature: t=1,v1=00")
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", request["X-Edge-Signature"])
    assert match is not None
    assert abs(int(match[1]) - time.time()) < 60
    signed = f"{match[1]}.{request['X-Request-Id']}.acme.basic.test"
    assert match[2] == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()


async def test_requests_without_a_key_are_signed_for_nobody(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await passes(edge, path="/public/x")
    moment, _, given = request["X-Edge-Signature"].removeprefix("t=").partition(",v1=")
    signed = f"{moment}.{request['X-Request-Id']}.-.-.test"
    assert given == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()


async def test_a_signed_request_passes_its_body_on_as_any_other(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await edge.passes(post(b"abc"), ok())
    assert request.body == b"abc"
    assert "X-Edge-Signature" in request


async def test_without_a_secret_nothing_is_signed(edge: Edge) -> None:
    request, _ = await passes(edge, path="/public/x")
    assert "X-Edge-Signature" not in request
