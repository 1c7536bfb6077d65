"""Security fields for browsers: on every response if configured, and never twice."""

import pytest

from tests.support.transcript import KEY, Edge, chunks, get, head, ok
from tests.support.wire import Message

PLAIN = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Content-Security-Policy": "frame-ancestors 'self'",
    "X-XSS-Protection": "0",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
HSTS = "Strict-Transport-Security"
ISOLATED = {
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NAMES = (HSTS, *PLAIN, *ISOLATED)
OWN = {
    **PLAIN,
    **ISOLATED,
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["security_headers"] = True
    return edge


def said(answer: Message) -> dict[str, str]:
    """Return the security fields of a response. Each may occur once."""
    return {name: answer[name] for name in NAMES if name in answer}


CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"a")
ANSWERS = {
    "whole": ok(),
    "in chunks": CHUNKED,
    "no content": head("HTTP/1.1 204 No Content"),
    "an error": head("HTTP/1.1 500 Oops", "Content-Length: 0"),
    "a redirect": head("HTTP/1.1 302 Found", "Location: /", "Content-Length: 0"),
}


async def test_missing_fields_are_added_to_an_upstreams_response(edge: Edge) -> None:
    for answered in ANSWERS.values():
        _, answer = await edge.passes(get(), answered)
        assert said(answer) == PLAIN


async def test_a_response_until_close_gets_the_fields(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK"), b"x")
    upstream.closes()
    assert said(await client.gets_answer()) == PLAIN


@pytest.mark.parametrize(("setting", "own"), [({"security_headers": False}, {}), ({}, OWN)])
async def test_unless_turned_on_at_most_the_edges_own_responses_have_the_fields(
    edge: Edge, setting: dict[str, bool], own: dict[str, str]
) -> None:
    del edge.config["security_headers"]
    edge.config |= setting
    for answered in (ok(), CHUNKED):
        _, answer = await edge.passes(get(), answered)
        assert said(answer) == {}
    assert said(await edge.refuses(get("/nowhere"))) == own


@pytest.mark.parametrize("at_top", [True, False, None])
async def test_isolation_headers_of_a_route_keep_the_upstreams_fields(edge: Edge, at_top: bool | None) -> None:
    edge.config["security_headers"] = at_top
    if at_top is None:
        del edge.config["security_headers"]
    (route,) = [route for route in edge.config["routes"] if route["path"].startswith("/public")]
    route["isolation_headers"] = True
    for answered in ANSWERS.values():
        _, answer = await edge.passes(get(), answered)
        assert said(answer) == PLAIN | ISOLATED
    theirs = {"Cross-Origin-Resource-Policy": "cross-origin", "Permissions-Policy": "camera=(self)"}
    _, answer = await edge.passes(get(), ok(b"", *map(": ".join, theirs.items())))
    assert said(answer) == PLAIN | ISOLATED | theirs


@pytest.mark.parametrize("framing", ["Content-Length: 0", "Transfer-Encoding: chunked"])
async def test_fields_set_by_the_upstream_stay_in_any_letter_case(edge: Edge, framing: str) -> None:
    theirs = ("x-frame-options: DENY", "CONTENT-SECURITY-POLICY: default-src 'self'", "X-Xss-Protection: 1; mode=block")
    body = chunks() if "chunked" in framing else b""
    _, answer = await edge.passes(get(), head("HTTP/1.1 200 OK", *theirs, framing) + body)
    assert said(answer) == {
        **PLAIN,
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": "default-src 'self'",
        "X-XSS-Protection": "1; mode=block",
    }


async def test_repeated_fields_of_the_upstream_are_forwarded(edge: Edge) -> None:
    policies = ("Content-Security-Policy: img-src 'self'", "Content-Security-Policy: script-src 'self'")
    _, answer = await edge.passes(get(), ok(b"", *policies))
    assert answer.all("Content-Security-Policy") == ["img-src 'self'", "script-src 'self'"]


async def test_each_response_gets_its_own_missing_fields(edge: Edge) -> None:
    """The cached state of one response must not apply to the next."""
    edge.upstream.answers(lambda request: ok(b"", *(["Referrer-Policy: origin"] if "/own" in request.first else [])))
    client = await edge.client()
    for path, expected in (("/public/own", "origin"), ("/public/", PLAIN["Referrer-Policy"])) * 3:
        assert (await client.asks(get(path)))["Referrer-Policy"] == expected


async def test_a_304_gets_no_fields(edge: Edge) -> None:
    """RFC 9111 section 3.2: a cache updates the stored response with the fields of a 304."""
    for connection in ((), ("Connection: close",)):
        _, answer = await edge.passes(get(), head("HTTP/1.1 304 Not Modified", "ETag: a", *connection))
        assert said(answer) == {}


async def test_interim_responses_and_tunnels_get_no_fields(edge: Edge) -> None:
    client, upstream = await edge.forwards(get("/public/", "Connection: upgrade", "Upgrade: websocket"))
    await upstream.sends(head("HTTP/1.1 103 Early Hints", "Link: </a>"))
    assert said(await client.gets_head()) == {}
    await upstream.sends(head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: websocket"))
    assert said(await client.gets_head()) == {}
    client.closes()
    upstream.closes()


async def test_rate_limit_fields_stand_beside_security_fields(edge: Edge) -> None:
    _, answer = await edge.passes(get("/v1/x", f"X-API-Key: {KEY}"), ok())
    assert said(answer) == PLAIN
    assert "RateLimit" in answer


async def test_head_gets_the_fields_of_get(edge: Edge) -> None:
    _, answer = await edge.passes(
        head("HEAD /public/ HTTP/1.1", "Host: h"), head("HTTP/1.1 200 OK", "Content-Length: 5"), "HEAD"
    )
    assert said(answer) == PLAIN


REFUSED = {
    400: b"nonsense\r\n\r\n",
    401: get("/v1/x"),
    404: get("/nowhere"),
    405: head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"),
    414: b"GET /" + b"x" * 40_000,
    505: b"GET / HTTP/2.0\r\n\r\n",
}


async def test_the_edges_own_refusals_have_the_fields(edge: Edge) -> None:
    for status, asked in REFUSED.items():
        answer = await edge.refuses(asked)
        assert (answer.status, said(answer)) == (status, OWN)


async def test_a_429_has_the_fields(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    await edge.passes(get("/v1/x", f"X-API-Key: {KEY}"), ok())
    for method in ("GET", "HEAD"):
        asked = head(f"{method} /v1/x HTTP/1.1", "Host: h", f"X-API-Key: {KEY}")
        answer = await edge.refuses(asked, method)
        assert (answer.status, said(answer)) == (429, OWN)


async def test_the_refusal_of_an_excess_connection_has_the_fields(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 1}
    await edge.client()
    other = await edge.client()
    answer = await other.gets_answer()
    assert (answer.status, said(answer)) == (429, OWN)


@pytest.mark.parametrize(
    ("proto", "secure"), [("https", True), ("HTTPS", True), ("https, http", True), ("http", False)]
)
async def test_hsts_follows_the_trusted_proxys_x_forwarded_proto(edge: Edge, proto: str, secure: bool) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.0/8"]
    _, answer = await edge.passes(get("/public/", f"X-Forwarded-Proto: {proto}"), ok())
    assert (HSTS in answer) is secure
    assert (HSTS in await edge.refuses(get("/nowhere", f"X-Forwarded-Proto: {proto}"))) is secure
