"""Pages of other origins: preflights without a key, answers that pages may read, and lookalike origins."""

import pytest

from edgeproxy.config.edge.cors import Cors
from edgeproxy.edge.proxy.routing.cors import CrossOrigin
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok
from tests.support.wire import Message

PAGE = "https://app.example.com"
ALLOWED = "Access-Control-Allow-Origin"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["cors"] = {"origins": [PAGE, "https://*.preview.example.com"], "expose": ["X-Own"]}
    edge.config["routes"] += [
        {"name": "posts", "path": "/posts", "upstream": "api", "methods": ["POST"]},
        {"name": "silent", "path": "/silent/*", "upstream": "api", "auth": "none", "cors": "off"},
        {"name": "own", "path": "/own/*", "upstream": "api", "cors": "off", "methods": ["POST"]},
        {"name": "any", "path": "/any/*", "upstream": "api", "cors": {"origins": ["*"], "headers": ["*"]}},
    ]
    return edge


def preflight(path: str, *fields: str, origin: str = PAGE, method: str = "POST") -> bytes:
    lines = (f"Origin: {origin}", f"Access-Control-Request-Method: {method}", *fields)
    return head(f"OPTIONS {path} HTTP/1.1", "Host: edge.test", *lines)


async def test_a_preflight_needs_no_key_and_no_upstream(edge: Edge) -> None:
    for path in ("/v1/x", "/posts", "/maybe/x"):
        answer = await edge.refuses(preflight(path), "OPTIONS")
        assert answer.status == 204
        assert answer.all(ALLOWED) == [PAGE]
        assert answer["Access-Control-Allow-Methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
        assert answer["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-API-Key"
        assert answer["Access-Control-Max-Age"] == "600"
        assert "Origin" in answer.all("Vary")
        assert edge.usage() == {}


async def test_a_preflight_for_a_method_that_no_route_has_is_refused_as_the_method_is(edge: Edge) -> None:
    assert (await edge.refuses(preflight("/posts", method="PUT"), "OPTIONS")).status == 405
    # Without an Origin, or the method that is asked about, it is none: it gets no further than any other OPTIONS.
    bare = head("OPTIONS /posts HTTP/1.1", "Host: h", "Access-Control-Request-Method: POST")
    assert (await edge.refuses(bare, "OPTIONS")).status == 405
    assert (await edge.refuses(head("OPTIONS /v1/x HTTP/1.1", "Host: h", f"Origin: {PAGE}"), "OPTIONS")).status == 401


async def test_route_without_cors_passes_preflights_to_its_upstream(edge: Edge) -> None:
    said = head("HTTP/1.1 204 Fine", f"{ALLOWED}: https://elsewhere.example")
    _, answer = await edge.passes(preflight("/silent/x"), said, "OPTIONS")
    assert answer.all(ALLOWED) == ["https://elsewhere.example"]


async def test_preflight_reaches_a_service_that_answers_it_itself(edge: Edge) -> None:
    """Browsers send a preflight without a key. A key is required afterwards, and for other OPTIONS requests."""
    said = head("HTTP/1.1 204 Fine", f"{ALLOWED}: https://elsewhere.example")
    request, answer = await edge.passes(preflight("/own/x"), said, "OPTIONS")
    assert answer.all(ALLOWED) == ["https://elsewhere.example"]
    assert "X-Customer-Id" not in request
    assert edge.count("edge_auth_failures_total", "missing") == 0
    posted = head("POST /own/x HTTP/1.1", "Host: h", f"Origin: {PAGE}", "Content-Length: 0")
    assert (await edge.refuses(posted, "POST")).status == 401
    assert edge.count("edge_auth_failures_total", "missing") == 1
    for more in ("Content-Length: 1", "Transfer-Encoding: chunked"):
        client = await edge.client()
        await client.sends(preflight("/own/x", more))
        assert (await client.gets_answer("OPTIONS")).status == 405
    with_key = preflight("/own/x", "X-API-Key: ek_nobody")
    assert (await edge.refuses(with_key, "OPTIONS")).status == 401


async def test_preflights_to_a_service_add_no_frames_to_the_refusal_of_others(edge: Edge) -> None:
    """All requests without a key get one error on a route. Each preflight raises it, and is forwarded."""
    for _ in range(2):
        await edge.passes(preflight("/own/x"), head("HTTP/1.1 204 Fine"), "OPTIONS")
    (cached,) = edge.runtime.snapshot.directory.anonymous._refusals.values()
    assert (cached.__traceback__, cached.__context__) == (None, None)


ANSWERS = {
    "whole": ok(b"hello", f"{ALLOWED}: *", "access-control-allow-credentials: true", "X-Own: yes"),
    "in chunks": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", f"{ALLOWED}: null") + chunks(b"hello"),
    "an error": head("HTTP/1.1 500 Oops", "Content-Length: 0"),
    "not modified": head("HTTP/1.1 304 Not Modified"),
}


async def test_answer_has_one_allow_origin_field(edge: Edge) -> None:
    for answered in ANSWERS.values():
        received, answer = await edge.passes(get("/v1/x", f"X-API-Key: {UNLIMITED}", f"Origin: {PAGE}"), answered)
        assert received["Origin"] == PAGE
        assert answer.all(ALLOWED) == [PAGE]
        assert "Access-Control-Allow-Credentials" not in answer
        exposed = "RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, X-Own"
        assert answer["Access-Control-Expose-Headers"] == exposed
        assert answer["Vary"] == "Origin"


async def test_each_answer_of_a_connection_allows_its_own_origin(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    for origin, allowed in ((PAGE, [PAGE]), ("https://x.preview.example.com", ["https://x.preview.example.com"])) * 2:
        assert (await client.asks(get("/v1/x", f"X-API-Key: {UNLIMITED}", f"Origin: {origin}"))).all(ALLOWED) == allowed
        answer = await client.asks(get("/v1/x", f"X-API-Key: {UNLIMITED}"))
        assert ALLOWED not in answer
        assert answer["Vary"] == "Origin"  # or a cache would give this answer to the page


async def test_a_page_sees_why_it_was_refused(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    edge.config["security_headers"] = True
    origin = f"Origin: {PAGE}"
    await edge.passes(get("/v1/x", f"X-API-Key: {KEY}", origin), ok())
    refused: list[tuple[int, bytes]] = [
        (401, get("/v1/x", origin)),
        (429, get("/v1/x", f"X-API-Key: {KEY}", origin)),
        (403, get("/read/x", f"X-API-Key: {UNLIMITED}", origin)),
        (404, get("/nowhere", origin)),
        (405, get("/posts", origin)),
    ]
    for status, request in refused:
        answer = await edge.refuses(request)
        assert (answer.status, answer.all(ALLOWED)) == (status, [PAGE])
        assert "Retry-After" in answer["Access-Control-Expose-Headers"]
        assert answer["X-Content-Type-Options"] == "nosniff"
    assert ALLOWED not in await edge.refuses(get("/v1/x"))


async def test_a_page_sees_the_coarse_limit_of_its_address_too(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "1/min"}
    del edge.config["cors"]
    await edge.refuses(get("/any/x", f"Origin: {PAGE}"))
    answer = await edge.refuses(get("/any/x", f"Origin: {PAGE}"))
    assert (answer.status, answer[ALLOWED]) == (429, "*")


async def test_wildcard_cors_allows_each_origin_and_field(edge: Edge) -> None:
    asked = "x-one, X-Two"
    answer = await edge.refuses(
        preflight("/any/x", f"Access-Control-Request-Headers: {asked}", origin="null"), "OPTIONS"
    )
    assert (answer.status, answer[ALLOWED], answer["Access-Control-Allow-Headers"]) == (204, "*", asked)
    odd = f"Access-Control-Request-Headers: {'x' * 2000}"
    assert "Access-Control-Allow-Headers" not in await edge.refuses(preflight("/any/x", odd), "OPTIONS")
    odd = "Access-Control-Request-Headers: a: b"
    assert "Access-Control-Allow-Headers" not in await edge.refuses(preflight("/any/x", odd), "OPTIONS")


def upgrade(*fields: str) -> bytes:
    return get("/maybe/x", "Connection: upgrade", "Upgrade: websocket", *fields)


async def test_a_page_that_may_not_call_opens_no_websocket(edge: Edge) -> None:
    for origins in (["https://evil.example"], ["null"], [PAGE, PAGE]):
        answer = await edge.refuses(upgrade(*[f"Origin: {origin}" for origin in origins]))
        assert answer.status == 403
    for fields in ([f"Origin: {PAGE}"], []):  # who sends no Origin is no page
        client, upstream = await edge.forwards(upgrade(*fields))
        await upstream.sends(head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: websocket"))
        assert (await client.gets_head()).status == 101
        client.closes()
        upstream.closes()


@pytest.mark.parametrize(
    ("host", "origin", "fields", "status"),
    [
        ("edge.test", "http://edge.test", [], 101),
        ("EDGE.test:80", "http://edge.test", [], 101),
        ("edge.test:8080", "http://edge.test:8080", [], 101),
        ("edge.test", "https://edge.test", ["X-Forwarded-Proto: https"], 101),
        ("10.0.0.1", "https://edge.test", ["X-Forwarded-Proto: https, http", "X-Forwarded-Host: edge.test, x"], 101),
        ("edge.test", "https://edge.test", [], 403),
        ("edge.test", "http://edge.test:8080", [], 403),
        ("edge.test", "http://evil.edge.test", [], 403),
        ("edge.test", "http://edge.test.evil.example", [], 403),
        ("edge.test", "null", [], 403),
        ("edge.test", "http://edge.test", ["X-Forwarded-Proto: https"], 403),
    ],
)
async def test_a_page_of_the_same_origin_opens_a_websocket(
    edge: Edge, host: str, origin: str, fields: list[str], status: int
) -> None:
    """`fields`: a trusted proxy's description of its client."""
    if fields:
        edge.config["trusted_proxies"] = ["127.0.0.1"]
    lines = (f"Host: {host}", "Connection: upgrade", "Upgrade: websocket", f"Origin: {origin}", *fields)
    request = head("GET /maybe/x HTTP/1.1", *lines)
    if status == 403:
        assert (await edge.refuses(request)).status == 403
        return
    client, upstream = await edge.forwards(request)
    await upstream.sends(head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: websocket"))
    assert (await client.gets_head()).status == status
    client.closes()
    upstream.closes()


async def test_untrusted_forwarded_host_does_not_set_the_own_origin(edge: Edge) -> None:
    assert (await edge.refuses(upgrade("Origin: http://a.example", "X-Forwarded-Host: a.example"))).status == 403


STRANGERS = [
    "null",
    "https://evil.example",
    "http://app.example.com",  # another scheme
    "https://app.example.com:8443",
    "https://app.example.com.evil.example",
    "https://evilapp.example.com",
    "https://app.example.com@evil.example",
    "https://app.example.com/",
    "https://APP.example.com",  # browsers send lower case
    "https://preview.example.com",  # not below itself
    "https://evilpreview.example.com",
    "https://evil.example/.preview.example.com",
    "https://evil.example#.preview.example.com",
    "https://evil.example:1.preview.example.com",
    "https://a\\b.preview.example.com",
    "https://xpreview-example.com",
    "https://.preview.example.com",
    "https://a.preview.example.com.evil.example",
    "https://a.preview.example.com, https://app.example.com",
    "*",
    "",
]


@pytest.mark.parametrize("origin", STRANGERS)
def test_similar_origin_is_not_allowed(origin: str) -> None:
    cors = CrossOrigin(Cors.model_validate({"origins": [PAGE, "https://*.preview.example.com"]}))
    assert not cors.allows(origin.encode())
    assert cors.format_fields(origin.encode()) == b"Vary: Origin\r\n"


async def test_unlisted_origin_gets_no_cors_fields(edge: Edge) -> None:
    answer: Message = await edge.refuses(preflight("/v1/x", origin="https://evil.example"), "OPTIONS")
    assert answer.status == 403
    assert ALLOWED not in answer
    _, answer = await edge.passes(get("/v1/x", f"X-API-Key: {UNLIMITED}", "Origin: https://evil.example"), ok())
    assert ALLOWED not in answer
    assert "Access-Control-Expose-Headers" not in answer


def test_cookies_go_along_where_that_is_said() -> None:
    cors = CrossOrigin(Cors.model_validate({"origins": [PAGE], "credentials": "true"}))
    assert b"Access-Control-Allow-Credentials: true\r\n" in cors.format_fields(PAGE.encode())
    assert b"Credentials" not in cors.format_fields(b"null")
