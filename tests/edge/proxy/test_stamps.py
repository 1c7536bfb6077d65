"""The stamps that upstreams receive. Clients cannot forge them."""

import hashlib
import hmac
import re
import time
import uuid

import pytest

from edgeproxy.config.edge import stamps
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok, post
from tests.support.wire import Message

TRACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
SECRET = "a-secret-of-the-edge-and-its-upstreams"


def chunked(body: bytes, path: str) -> bytes:
    """Return a chunked POST, whose length does not follow from its head."""
    return head(f"POST {path} HTTP/1.1", "Host: edge.test", f"X-API-Key: {KEY}", "Transfer-Encoding: chunked") + chunks(
        body
    )


def names(message: Message) -> list[str]:
    return [name.lower() for name, _ in message.fields]


async def passes(edge: Edge, *fields: str, path: str = "/v1/x", answer: bytes = b"") -> tuple[Message, Message]:
    request = head(f"GET {path} HTTP/1.1", "Host: edge.test", *fields)
    return await edge.passes(request, answer or ok())


# ---- the stamps themselves


async def test_an_upstream_receives_exactly_these_fields(edge: Edge) -> None:
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


async def test_without_a_key_there_is_no_customer(edge: Edge) -> None:
    request, _ = await passes(edge, path="/public/x")
    assert "X-Customer-Id" not in request
    assert "X-Customer-Tier" not in request
    assert request["X-Edge-Region"] == "test"


async def test_without_a_key_the_tier_is_anonymous_if_it_is_configured(edge: Edge) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "100/min"}]}
    for path in ("/public/x", "/maybe/x"):
        request, _ = await passes(edge, path=path)
        assert "X-Customer-Id" not in request
        assert request["X-Customer-Tier"] == "anonymous"


# ---- fields that clients must not set


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


async def test_clients_cannot_send_the_fields_that_the_edge_adds(edge: Edge) -> None:
    """The test takes the names from a received request, so it also finds stamps missing in config/edge/stamps.py."""
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


# ---- hop-by-hop fields, both ways


async def test_an_upstreams_own_request_id_is_replaced(edge: Edge) -> None:
    """The client's request id must equal the id in the logs."""
    for answered in (ok(b"a", "X-Request-Id: theirs"), ok(b"a", "X-Request-Id: theirs", "Connection: close")):
        request, answer = await passes(edge, path="/public/x", answer=answered)
        assert answer["X-Request-Id"] == request["X-Request-Id"]


# ---- keys


async def test_the_first_configured_field_holds_the_key(edge: Edge) -> None:
    edge.config["auth"] = {"fields": ["Authorization", "X-API-Key"]}
    request, _ = await passes(edge, f"X-API-Key: {UNLIMITED}", f"Authorization: Bearer {KEY}")
    assert request["X-Customer-Id"] == "acme"
    assert request["X-API-Key"] == UNLIMITED, "the field belongs to the application"


async def test_an_upstream_with_forward_key_is_sent_the_key(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["forward_key"] = True
    for name, value in (("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)):
        request, _ = await passes(edge, f"{name}: {value}")
        assert request[name] == value
        assert request["X-Customer-Id"] == "acme"


async def test_a_route_without_authentication_passes_credentials_on(edge: Edge) -> None:
    """The edge does not read credentials on such a route, known or unknown."""
    for value in (f"Bearer {KEY}", "Bearer unknown", "Basic eDp5", "Digest x"):
        request, answer = await passes(edge, f"Authorization: {value}", path="/public/x")
        assert request["Authorization"] == value
        assert "X-Customer-Id" not in request
        assert answer.status == 200
    request, _ = await passes(edge, "X-API-Key: whatever", path="/public/x")
    assert request["X-API-Key"] == "whatever"


async def test_an_optional_key_identifies_the_customer_and_is_not_forwarded(edge: Edge) -> None:
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


PRETENDED = (
    *("X.Customer.Id: root", "X!Customer!Tier: gold", "X_Forwarded_Prefix: /admin", "X.Real.IP: 10.0.0.1"),
    *("X-Forwarded-Prefix: /admin", "X-Forwarded-User: root", "X-Real-Scheme: https", "X-Original-URL: /admin"),
    *("True-Client-IP: 10.0.0.1", "Remote-User: root", "CF-Connecting-IP: 10.0.0.1", "X-Internal-Role: admin"),
    *(
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "X-Envoy-Original-Path: /admin",
        "X-Remote-User: root",
    ),
    *("X-Client-IP: 10.0.0.1", "CF-IPCountry: DE", "Fastly-Client-IP: 10.0.0.1", "X-Cluster-Client-IP: 10.0.0.1"),
)


@pytest.mark.parametrize("trusted", [False, True])
async def test_fields_of_proxies_and_the_edge_are_dropped_unless_trusted(edge: Edge, trusted: bool) -> None:
    edge.config["strip"] = ["X-Internal-*"]
    if trusted:
        edge.config["trusted_proxies"] = ["127.0.0.1"]
    request, _ = await passes(edge, *PRETENDED, "X-Mine: 1", path="/public/x")
    came = {line.partition(":")[0].lower() for line in PRETENDED} & set(names(request))
    # Names that servers read as another name are always dropped. A trusted proxy may send the others.
    assert came == ({line.partition(":")[0].lower() for line in PRETENDED[4:]} if trusted else set())
    assert request["X-Mine"] == "1"


async def test_strip_except_lets_a_field_pass(edge: Edge) -> None:
    edge.config["strip_except"] = ["X-HTTP-Method-Override"]
    request, _ = await passes(edge, "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", path="/public/x")
    assert request["X-HTTP-Method-Override"] == "DELETE"
    assert "x-http-method" not in names(request)


# ---- the signature


async def test_the_signature_proves_the_stamps(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await passes(edge, f"X-API-Key: {KEY}", "X-Edge-Signature: t=1,v1=00")
    match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", request["X-Edge-Signature"])
    assert match is not None
    assert abs(int(match[1]) - time.time()) < 60
    signed = f"{match[1]}.{request['X-Request-Id']}.acme.basic.test"
    assert match[2] == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (get("/v1/x?a=1&edge=2", f"X-API-Key: {KEY}"), b""),
        (post(b"abc", "/v1/x?a=1&edge=2", f"X-API-Key: {KEY}"), b"abc"),
        (chunked(b"abc", "/v1/x?a=1&edge=2"), None),
    ],
    ids=["no body", "a body", "a body that may go on"],
)
async def test_a_signature_may_cover_the_whole_request(edge: Edge, request_: bytes, body: bytes | None) -> None:
    edge.config |= {"stamp_secret": SECRET, "stamp_signature": "v2", "auth": {"query": "edge"}}
    request, _ = await edge.passes(request_, ok())
    pattern = r"t=(\d+),v1=[0-9a-f]{64},v2=([0-9a-f]{64}),body=(-|[0-9a-f]{64})"
    match = re.fullmatch(pattern, request["X-Edge-Signature"])
    assert match is not None
    assert match[3] == ("-" if body is None else hashlib.sha256(body).hexdigest())
    method, target, _ = request.first.split(" ")
    assert target == "/v1/x?a=1"

    def signed(*parts: str) -> str:
        content = "".join(f"{part}\n" for part in parts)
        return hmac.new(SECRET.encode(), content.encode(), hashlib.sha256).hexdigest()

    whole = (match[1], request["X-Request-Id"], "acme", "basic", "test", method, target, match[3])
    assert match[2] == signed(*whole)
    # The signature does not fit another path. A signature of the first version would.
    assert match[2] != signed(*whole[:6], "/v1/other", match[3])


async def test_requests_without_a_key_are_signed_with_dashes(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await passes(edge, path="/public/x")
    moment, _, given = request["X-Edge-Signature"].removeprefix("t=").partition(",v1=")
    signed = f"{moment}.{request['X-Request-Id']}.-.-.test"
    assert given == hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()


async def test_a_signed_request_forwards_its_body(edge: Edge) -> None:
    edge.config["stamp_secret"] = SECRET
    request, _ = await edge.passes(post(b"abc"), ok())
    assert request.body == b"abc"
    assert "X-Edge-Signature" in request
