"""Requests that the edge does not forward: what the client is told, and what becomes of its connection.

The stage checks at the end of each test that nothing was forwarded.
"""

import json

import pytest

from tests.support.transcript import EXPIRED, KEY, READER, UNLIMITED, Edge, chunks, get, head, ok, post
from tests.support.wire import Message


def is_problem(answer: Message, status: int) -> dict[str, object]:
    """An error of the edge's own (RFC 9457); returns what its body says."""
    assert answer.status == status
    assert answer["Content-Type"] == "application/problem+json"
    said = json.loads(answer.body)
    assert set(said) >= {"type", "title", "status", "detail", "instance"}
    assert said["status"] == status
    assert said["instance"] == answer["X-Request-Id"]
    assert said["type"]
    assert said["title"]
    assert said["detail"]
    return dict(said)


def lines(*fields: str, first: str = "GET /public/ HTTP/1.1") -> bytes:
    return head(first, *fields)


KEPT = {
    "401 no key": (get("/v1/x"), 401),
    "401 unknown key": (get("/v1/x", "Authorization: Bearer nobody"), 401),
    "401 unknown key in the other field": (get("/v1/x", "X-API-Key: nobody"), 401),
    "401 empty key": (get("/v1/x", "X-API-Key:"), 401),
    "401 empty bearer": (get("/v1/x", "Authorization: Bearer"), 401),
    "401 expired key": (get("/v1/x", f"X-API-Key: {EXPIRED}"), 401),
    "401 bad key on an open route": (get("/maybe/x", "X-API-Key: nobody"), 401),
    "401 expired key on an open route": (get("/maybe/x", f"X-API-Key: {EXPIRED}"), 401),
    "403 scope": (get("/read/x", f"X-API-Key: {UNLIMITED}"), 403),
    "404 no route": (get("/nowhere"), 404),
    "404 before a key is asked for": (get("/nowhere", "X-API-Key: nobody"), 404),
    "404 for what only begins like a route": (get("/v1"), 404),
    "405 method": (head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 0"), 405),
    "405 with a whole body": (head("POST /get/x HTTP/1.1", "Host: h", "Content-Length: 3") + b"abc", 405),
}


@pytest.mark.parametrize("name", KEPT)
async def test_a_refused_request_leaves_its_connection_open(edge: Edge, name: str) -> None:
    """Where it is clear where the next request begins."""
    request, status = KEPT[name]
    client = await edge.client()
    for _ in range(2):
        await client.sends(request)
        answer = await client.gets_answer()
        is_problem(answer, status)
        assert "Connection" not in answer
    await client.sends(get("/public/next"))
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first == "GET /public/next HTTP/1.1"
    await upstream.sends(ok())
    assert (await client.gets_answer()).status == 200


CLOSED = {
    # RFC 9112 section 3: the request line
    "400 no request line": (b"nonsense\r\n\r\n", 400),
    "400 two spaces": (lines("Host: h", first="GET  /public/ HTTP/1.1"), 400),
    "400 space at the end": (lines("Host: h", first="GET /public/ HTTP/1.1 "), 400),
    "400 no target": (lines("Host: h", first="GET HTTP/1.1"), 400),
    "400 tab": (lines("Host: h", first="GET\t/public/ HTTP/1.1"), 400),
    "400 version word": (lines("Host: h", first="GET /public/ ICE/1.0"), 400),
    "400 HTTP/0.9": (b"GET /public/\r\n\r\n", 400),
    "400 fragment": (lines("Host: h", first="GET /public/#x HTTP/1.1"), 400),
    "400 control in the target": (lines("Host: h", first="GET /public/\x01 HTTP/1.1"), 400),
    "400 raw umlaut": (lines("Host: h", first="GET /public/ä HTTP/1.1"), 400),
    "400 asterisk": (lines("Host: h", first="GET * HTTP/1.1"), 400),
    "400 no leading slash": (lines("Host: h", first="GET public/ HTTP/1.1"), 400),
    # The path rule
    "400 above the root": (get("/../x"), 400),
    "400 encoded slash": (get("/public/%2fx"), 400),
    "400 encoded backslash": (get("/public/%5Cx"), 400),
    "400 encoded NUL": (get("/public/%00"), 400),
    "400 half an escape": (get("/public/%2"), 400),
    "400 no escape": (get("/public/%zz"), 400),
    # RFC 9112 section 3.2: Host
    "400 no Host": (b"GET /public/ HTTP/1.1\r\n\r\n", 400),
    "400 two Hosts": (lines("Host: a", "Host: a"), 400),
    "400 malformed Host": (lines("Host: a b"), 400),
    "400 empty Host": (lines("Host:"), 400),
    "400 another host in the target": (lines("Host: a", first="GET http://b/public/ HTTP/1.1"), 400),
    # RFC 9112 section 5: field lines
    "400 space before the colon": (lines("Host: h", "X-A : b"), 400),
    "400 no colon": (lines("Host: h", "X-A"), 400),
    "400 folded line": (lines("Host: h", "X-A: b", " c"), 400),
    "400 empty name": (lines("Host: h", ": b"), 400),
    "400 NUL in a value": (lines("Host: h", "X-A: b\0c"), 400),
    "400 CR in a value": (lines("Host: h", "X-A: b\rc"), 400),
    "400 LF alone": (b"GET /public/ HTTP/1.1\nHost: h\n\n\r\n\r\n", 400),
    "400 leading space": (b" GET /public/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    # RFC 9112 section 6: framing
    "400 length and coding": (lines("Host: h", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
    "400 two lengths": (lines("Host: h", "Content-Length: 3", "Content-Length: 4"), 400),
    "400 two equal lengths": (lines("Host: h", "Content-Length: 3", "Content-Length: 3"), 400),
    "400 list of lengths": (lines("Host: h", "Content-Length: 3, 3"), 400),
    "400 negative length": (lines("Host: h", "Content-Length: -1"), 400),
    "400 length with a sign": (lines("Host: h", "Content-Length: +1"), 400),
    "400 no number": (lines("Host: h", "Content-Length: x"), 400),
    "400 endless length": (lines("Host: h", "Content-Length: " + "9" * 30), 400),
    "400 coding in HTTP/1.0": (lines("Host: h", "Transfer-Encoding: chunked", first="GET /public/ HTTP/1.0"), 400),
    "400 coding twice": (lines("Host: h", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "400 two Authorizations": (lines("Host: h", "Authorization: Bearer a", "Authorization: Bearer b"), 400),
    "501 another coding": (lines("Host: h", "Transfer-Encoding: gzip"), 501),
    "501 a coding before chunked": (lines("Host: h", "Transfer-Encoding: gzip, chunked"), 501),
    "501 a method of its own": (lines("Host: h", first="BREW /public/ HTTP/1.1"), 501),
    "501 CONNECT": (lines("Host: h:443", first="CONNECT /public/ HTTP/1.1"), 501),
    "501 TRACE": (lines("Host: h", first="TRACE /public/ HTTP/1.1"), 501),
    "505 HTTP/2.0": (lines("Host: h", first="GET /public/ HTTP/2.0"), 505),
    "505 HTTP/1.2": (lines("Host: h", first="GET /public/ HTTP/1.2"), 505),
    "505 HTTP/0.9": (lines("Host: h", first="GET /public/ HTTP/0.9"), 505),
    "505 the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    # Sizes
    "414 line": (get("/public/" + "x" * 9000), 414),
    "431 head": (get("/public/", *(f"X-{n}: {'x' * 4000}" for n in range(9))), 431),
    "431 number of fields": (get("/public/", *(f"X-{n}: x" for n in range(100))), 431),
    # RFC 9110 section 10.1.1
    "417 another expectation": (lines("Host: h", "Expect: miracles"), 417),
    # What is still to come of the request could not be told from the next one
    "404 with a body to come": (head("POST /nowhere HTTP/1.1", "Host: h", "Content-Length: 3"), 404),
    "401 with chunks": (head("POST /v1/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + chunks(b"x"), 401),
    "404 that expects 100": (
        head("POST /nowhere HTTP/1.1", "Host: h", "Content-Length: 3", "Expect: 100-continue"),
        404,
    ),
    # The client asked for it
    "404 with close": (get("/nowhere", "Connection: close"), 404),
    "404 in HTTP/1.0": (b"GET /nowhere HTTP/1.0\r\nHost: h\r\n\r\n", 404),
    "401 in HTTP/1.0 without Host": (b"GET /v1/x HTTP/1.0\r\n\r\n", 401),
    # A body that breaks off
    "400 malformed chunk": (head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked") + b"x\r\n", 400),
}


@pytest.mark.parametrize("name", CLOSED)
async def test_a_refused_request_may_end_its_connection(edge: Edge, name: str) -> None:
    """Where it is unclear where the next request begins, or where the client asked for it; then it is said so."""
    request, status = CLOSED[name]
    client = await edge.client()
    await client.sends(request)
    answer = await client.gets_answer()
    is_problem(answer, status)
    assert answer["Connection"] == "close"
    await client.gets_eof()


async def test_nothing_behind_a_request_that_ends_its_connection_is_served(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(lines("Host: h", "Content-Length: 3", "Transfer-Encoding: chunked"), get("/public/smuggled"))
    assert (await client.gets_answer()).status == 400
    await client.gets_eof()


async def test_a_client_that_goes_on_sending_still_reads_why_it_was_refused(edge: Edge) -> None:
    """RFC 9112 section 9.6: closing over unread input would reset the connection, and the answer with it."""
    edge.config["limits"] = {"body": "1KiB"}
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 5000000"))
    await client.sends_while_taken(bytes(1 << 16), 5_000_000)
    assert (await client.gets_answer()).status == 413
    await client.gets_eof()


async def test_head_is_refused_without_a_body(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(head("HEAD /nowhere HTTP/1.1", "Host: h"), get("/nowhere"))
    answer = await client.gets_answer("HEAD")
    assert answer.status == 404
    assert int(answer["Content-Length"]) > 0
    is_problem(await client.gets_answer(), 404)


@pytest.mark.parametrize(
    ("line", "status"),
    [("Host: a b", 400), ("Content-Length: x", 400), ("Expect: tea", 417), ("X: " + "a" * 40_000, 431)],
)
async def test_head_is_refused_without_a_body_where_its_fields_are_not_understood(
    edge: Edge, line: str, status: int
) -> None:
    """RFC 9110 section 9.3.2. Found by tests/fuzz."""
    client = await edge.client()
    await client.sends(head("HEAD /public/ HTTP/1.1", "Host: h", line))
    answer = await client.gets_answer("HEAD")
    assert (answer.status, int(answer["Content-Length"]) > 0) == (status, True)
    await client.gets_eof()


async def test_half_a_head_that_cannot_become_one_is_refused_at_once(edge: Edge) -> None:
    for half in (b"GET /" + b"x" * 9000, b"GET /public/ HTTP/2.0\r\n", b"\x16\x03\x01\x02\x00\n", b"GET /a\0"):
        answer = await edge.refuses(half)
        assert answer.status in (400, 414, 505)


async def test_a_head_just_within_the_bounds_passes(edge: Edge) -> None:
    for request in (
        get("/public/" + "x" * (8192 - len("GET /public/ HTTP/1.1"))),
        get("/public/", *(f"X-{n}: x" for n in range(99))),
    ):
        _, answer = await edge.passes(request, ok())
        assert answer.status == 200


async def test_the_bounds_are_those_of_the_configuration(edge: Edge) -> None:
    edge.config["limits"] = {"head": "1KiB", "fields": 3}
    assert (await edge.refuses(get("/public/", "X-A: " + "x" * 1100))).status == 431
    assert (await edge.refuses(get("/public/", "X-A: 1", "X-B: 2", "X-C: 3"))).status == 431
    _, answer = await edge.passes(get("/public/", "X-A: 1", "X-B: 2"), ok())
    assert answer.status == 200


async def test_a_body_longer_than_allowed_is_413_before_it_is_read(edge: Edge) -> None:
    edge.config["limits"] = {"body": "10B"}
    is_problem(await edge.refuses(post(bytes(11))), 413)
    _, answer = await edge.passes(post(bytes(10)), ok())
    assert answer.status == 200


async def test_a_chunked_body_that_grows_too_long_is_413_and_never_complete(edge: Edge) -> None:
    edge.config["limits"] = {"body": "10B"}
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), b"a\r\n0123456789\r\n")
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.gets(b"a\r\n0123456789\r\n")
    await client.sends(b"1\r\nx\r\n0\r\n\r\n")
    answer = await client.gets_answer()
    is_problem(answer, 413)
    assert answer["Connection"] == "close"
    assert await upstream.gets_cut() == b""


async def test_a_body_that_turns_out_malformed_is_400_and_never_complete(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), b"1\r\nx\r\n")
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.gets(b"1\r\nx\r\n")
    await client.sends(b"nonsense\r\n")
    is_problem(await client.gets_answer(), 400)
    await client.gets_eof()
    assert await upstream.gets_cut() == b""


async def test_a_401_says_what_is_wanted(edge: Edge) -> None:
    """RFC 9110 section 11.6.1, RFC 6750 section 3."""
    none = await edge.refuses(get("/v1/x"))
    assert none["WWW-Authenticate"] == 'Bearer realm="edgeproxy"'
    for key in ("nobody", EXPIRED):
        bad = await edge.refuses(get("/v1/x", f"Authorization: Bearer {key}"))
        assert bad["WWW-Authenticate"] == 'Bearer realm="edgeproxy", error="invalid_token"'


async def test_a_405_says_what_is_allowed(edge: Edge) -> None:
    answer = await edge.refuses(head("DELETE /get/x HTTP/1.1", "Host: h"))
    assert answer["Allow"] == "GET, HEAD"


async def test_a_scope_opens_the_route_that_asks_for_it(edge: Edge) -> None:
    _, answer = await edge.passes(get("/read/x", f"X-API-Key: {READER}"), ok())
    assert answer.status == 200


async def test_no_error_of_the_edge_is_billed_or_forgotten(edge: Edge) -> None:
    edge.config["meters"] = {"all": {"count": "requests", "when": "admitted"}, "requests": {"count": "requests"}}
    for request in (get("/v1/x"), get("/nowhere"), get("/read/x", f"X-API-Key: {UNLIMITED}"), b"nonsense\r\n\r\n"):
        await edge.refuses(request)
    assert edge.usage() == {}
    assert edge.count("edge_requests_total", "v1", "-", "401") == 1
    assert edge.count("edge_requests_total", "-", "-", "404") == 1
    assert edge.count("edge_requests_total", "-", "-", "400") == 1
    assert sum(sum(words) for words in edge.metrics("edge_requests_total").values()) == 4


async def test_refusals_for_their_key_are_counted_by_reason(edge: Edge) -> None:
    for fields in ((), ("X-API-Key: nobody",), ("X-API-Key: nobody",), (f"X-API-Key: {EXPIRED}",)):
        await edge.refuses(get("/v1/x", *fields))
    await edge.refuses(get("/read/x", f"X-API-Key: {KEY}"))
    counted = {labels[0]: words[0] for labels, words in edge.metrics("edge_auth_failures_total").items()}
    assert counted == {"missing": 1, "unknown": 2, "expired": 1, "scope": 1}
