"""Ordinary messages, from the client through the edge to the upstream and back."""

import pytest

from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok, post


async def test_a_get_goes_through_and_its_answer_comes_back(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get("/public/a?b=c"))
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_request()
    assert request.first == "GET /public/a?b=c HTTP/1.1"
    assert request["Host"] == "edge.test"
    assert request.body == b""
    await upstream.sends(ok(b"hello", "Content-Type: text/plain"))
    answer = await client.gets_answer()
    assert answer.first == "HTTP/1.1 200 OK"
    assert answer["Content-Type"] == "text/plain"
    assert answer["Content-Length"] == "5"
    assert answer.body == b"hello"
    assert "Connection" not in answer
    assert "Transfer-Encoding" not in answer


async def test_a_body_of_known_length_goes_with_its_head(edge: Edge) -> None:
    request, _ = await edge.passes(post(b"abc"), ok())
    assert request["Content-Length"] == "3"
    assert "Transfer-Encoding" not in request
    assert request.body == b"abc"


async def test_a_body_of_known_length_may_come_in_many_pieces(edge: Edge) -> None:
    client = await edge.client()
    whole = post(b"0123456789")
    await client.sends(whole[:-10])
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_head()
    assert request["Content-Length"] == "10"
    for n in range(10):
        await client.sends(b"%d" % n)
        await upstream.gets(b"%d" % n)
    await upstream.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_an_empty_body_is_a_length_of_zero(edge: Edge) -> None:
    request, _ = await edge.passes(post(b""), ok())
    assert request["Content-Length"] == "0"


async def test_a_chunked_request_is_chunked_anew(edge: Edge) -> None:
    """RFC 9112 section 7.1; extensions end here (section 7.1.1)."""
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Transfer-Encoding: chunked"))
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_head()
    assert request["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in request
    await client.sends(b"3;name=value\r\nabc\r\n2\r\nde\r\n")
    await upstream.gets(b"5\r\nabcde\r\n")
    await client.sends(b"1\r")
    await client.sends(b"\nf\r\n0\r\n\r\n")
    await upstream.gets(b"1\r\nf\r\n0\r\n\r\n")
    await upstream.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_a_chunked_answer_is_passed_on_as_it_comes(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    answer = await client.gets_head()
    assert answer["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in answer
    await upstream.sends(b"3\r\nabc\r\n")
    await client.gets(b"3\r\nabc\r\n")
    await upstream.sends(b"2;x\r\nde\r\n0\r\n\r\n")
    await client.gets(b"2\r\nde\r\n0\r\n\r\n")
    # Both connections are whole again.
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(ok())
    assert (await client.gets_answer()).body == b"hello"


async def test_a_whole_chunked_answer_in_one_piece(edge: Edge) -> None:
    answered = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc", b"defg")
    _, answer = await edge.passes(get(), answered)
    assert answer.body == b"abcdefg"


async def test_trailers_of_an_answer_pass_but_for_those_that_could_change_it(edge: Edge) -> None:
    """RFC 9110 section 6.5.1."""
    trailers = ("X-Sum: 7", "Content-Length: 3", "Set-Cookie: a=b", "X-Request-Id: mine")
    answered = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc", trailers=trailers)
    _, answer = await edge.passes(get(), answered)
    assert answer.trailers == [("X-Sum", "7")]


async def test_head_is_answered_without_a_body_whatever_the_length_says(edge: Edge) -> None:
    """RFC 9110 section 9.3.2: the connection must not wait for a body, nor take the next answer for it."""
    client = await edge.client()
    await client.sends(head("HEAD /public/ HTTP/1.1", "Host: edge.test"))
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first == "HEAD /public/ HTTP/1.1"
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 1000"))
    answer = await client.gets_answer("HEAD")
    assert answer["Content-Length"] == "1000"
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(ok(b"next"))
    assert (await client.gets_answer()).body == b"next"


async def test_head_of_something_chunked(edge: Edge) -> None:
    answered = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
    _, answer = await edge.passes(head("HEAD /public/ HTTP/1.1", "Host: edge.test"), answered, "HEAD")
    assert answer.status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ("HTTP/1.1 204 No Content",),
        ("HTTP/1.1 304 Not Modified", 'ETag: "x"'),
        ("HTTP/1.1 304 Not Modified", "Content-Length: 1000"),
    ],
)
async def test_answers_that_have_no_body_end_with_their_head(edge: Edge, lines: tuple[str, ...]) -> None:
    """RFC 9112 section 6.3, rule 1."""
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head(*lines))
    answer = await client.gets_answer()
    assert answer.first == lines[0]
    assert answer.body == b""
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(ok(b"next"))
    assert (await client.gets_answer()).body == b"next"


async def test_a_204_that_announces_a_body_loses_the_announcement_and_its_connection(edge: Edge) -> None:
    """RFC 9110 section 8.6: no Content-Length in a 204."""
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 204 No Content", "Content-Length: 3") + b"abc")
    answer = await client.gets_answer()
    assert answer.status == 204
    assert "Content-Length" not in answer
    assert await upstream.gets_cut() == b""
    assert client.has() == b""


async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(edge: Edge) -> None:
    """RFC 9112 section 6.3, rule 8."""
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK"), b"abc")
    answer = await client.gets_head()
    assert answer["Transfer-Encoding"] == "chunked"
    await client.gets(b"3\r\nabc\r\n")
    await upstream.sends(b"de")
    await client.gets(b"2\r\nde\r\n")
    upstream.closes()
    await client.gets(b"0\r\n\r\n")
    # The client's connection has nothing to do with that.
    await client.sends(get())
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_an_http_1_0_upstream_is_spoken_to_in_1_1_and_answers_as_it_can(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    answer = await client.gets_answer()
    assert answer.first == "HTTP/1.1 200 OK"
    assert answer.body == b"abc"
    assert "Connection" not in answer
    await upstream.gets_eof()


async def test_an_http_1_0_upstream_that_keeps_its_connection_is_asked_again(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    for _ in range(2):
        await upstream.gets_request()
        await upstream.sends(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc")
        assert (await client.gets_answer()).body == b"abc"
        await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()


async def test_an_http_1_0_client_gets_a_length_and_the_end_of_its_connection(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(b"GET /public/ HTTP/1.0\r\nHost: edge.test\r\n\r\n")
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first == "GET /public/ HTTP/1.1"
    await upstream.sends(ok())
    answer = await client.gets_answer()
    assert answer.body == b"hello"
    assert answer["Connection"] == "close"
    await client.gets_eof()


async def test_an_http_1_0_client_is_never_sent_chunks(edge: Edge) -> None:
    """RFC 9112 section 6.1."""
    client = await edge.client()
    await client.sends(b"GET /public/ HTTP/1.0\r\nHost: edge.test\r\n\r\n")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunks(b"abc", b"def"))
    answer = await client.gets_head()
    assert "Transfer-Encoding" not in answer
    assert "Content-Length" not in answer
    assert answer["Connection"] == "close"
    assert await client.gets_rest() == b"abcdef"


async def test_an_http_1_0_client_needs_no_host(edge: Edge) -> None:
    request, answer = await edge.passes(b"GET /public/ HTTP/1.0\r\n\r\n", ok())
    assert answer.status == 200
    assert len(request.all("Host")) == 1


async def test_an_http_1_0_client_may_post(edge: Edge) -> None:
    request, answer = await edge.passes(
        b"POST /public/ HTTP/1.0\r\nHost: edge.test\r\nContent-Length: 3\r\n\r\nabc", ok()
    )
    assert request.body == b"abc"
    assert answer.status == 200


async def test_empty_lines_before_a_request_are_ignored(edge: Edge) -> None:
    """RFC 9112 section 2.2."""
    client = await edge.client()
    await client.sends(b"\r\n\r\n", get("/public/1"))
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first == "GET /public/1 HTTP/1.1"
    await upstream.sends(ok())
    await client.gets_answer()
    # As some clients send one after the body of a POST.
    await client.sends(post(b"abc"), b"\r\n", get("/public/2"))
    assert (await upstream.gets_request()).body == b"abc"
    await upstream.sends(ok())
    await client.gets_answer()
    assert (await upstream.gets_request()).first == "GET /public/2 HTTP/1.1"
    await upstream.sends(ok())
    await client.gets_answer()


async def test_a_target_in_absolute_form_is_forwarded_in_origin_form(edge: Edge) -> None:
    """RFC 9112 section 3.2.2."""
    request, answer = await edge.passes(head("GET http://edge.test/public/a?b HTTP/1.1", "Host: edge.test"), ok())
    assert request.first == "GET /public/a?b HTTP/1.1"
    assert request["Host"] == "edge.test"
    assert answer.status == 200


@pytest.mark.parametrize(("sent", "left"), [("1", "0"), ("10", "9"), ("007", "6"), ("9" * 30, "9" * 17 + "8")])
async def test_options_goes_one_step_less_far_than_it_says(edge: Edge, sent: str, left: str) -> None:
    """RFC 9110 section 7.6.2."""
    asked = head("OPTIONS /public/ HTTP/1.1", "Host: edge.test", f"Max-Forwards: {sent}")
    request, _ = await edge.passes(asked, ok())
    assert request["Max-Forwards"] == left


@pytest.mark.parametrize("sent", ["0", "000", "0" * 30])
async def test_options_that_may_go_no_further_is_answered_here(edge: Edge, sent: str) -> None:
    """RFC 9110 section 7.6.2: by who would have forwarded it, as if that were who was asked."""
    edge.config["tiers"]["basic"]["concurrency"] = 1
    fields = ("Host: edge.test", f"Authorization: Bearer {KEY}", f"Max-Forwards: {sent}")
    asked = head("OPTIONS /v1/ HTTP/1.1", *fields)
    client = await edge.client()
    for _ in range(2):
        await client.sends(asked)
        answer = await client.gets_answer()
        assert answer.first == "HTTP/1.1 204 No Content"
        assert "RateLimit" in answer
        assert "X-Request-Id" in answer
        assert "Content-Type" not in answer
        assert "Content-Length" not in answer
        assert "Connection" not in answer
    assert not edge.upstream.is_asked()
    assert edge.count("edge_requests_total", "v1", "basic", "204") == 2
    assert edge.usage() == {}


@pytest.mark.parametrize("sent", ["", "-1", "1.5", "many"])
async def test_max_forwards_that_is_no_number_limits_nothing(edge: Edge, sent: str) -> None:
    asked = head("OPTIONS /public/ HTTP/1.1", "Host: edge.test", f"Max-Forwards: {sent}")
    request, _ = await edge.passes(asked, ok())
    assert request["Max-Forwards"] == sent


async def test_max_forwards_of_other_methods_passes(edge: Edge) -> None:
    request, _ = await edge.passes(get("/public/", "Max-Forwards: 0"), ok())
    assert request["Max-Forwards"] == "0"


async def test_options_star_is_forwarded_where_a_route_has_it(edge: Edge) -> None:
    """RFC 9112 section 3.2.4. Only a path can be configured, so today no route can have it."""
    answer = await edge.refuses(head("OPTIONS * HTTP/1.1", "Host: edge.test"))
    assert answer.status == 404


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        ("/public/a/../b", "/public/b"),
        ("/public/./b", "/public/b"),
        ("/public/%2e%2E/public/b", "/public/b"),
        ("/%70ublic/%7euser", "/public/~user"),
        ("/public/a%c3%a4", "/public/a%C3%A4"),
        ("/public//a", "/public//a"),
        ("/public/a?x=/../%2e%2f", "/public/a?x=/../%2e%2f"),
        ("/public/..a", "/public/..a"),
    ],
)
async def test_what_is_forwarded_is_the_path_that_was_matched(edge: Edge, asked: str, forwarded: str) -> None:
    """RFC 3986 sections 5.2.4 and 6.2.2: no spelling is routed as one thing and served as another."""
    request, _ = await edge.passes(get(asked), ok())
    assert request.first == f"GET {forwarded} HTTP/1.1"


async def test_a_dot_segment_leads_to_the_route_where_it_leads(edge: Edge) -> None:
    """`/public/../v1` must not be served as public."""
    for spelling in ("/public/../v1/x", "/public/%2e%2e/v1/x", "/public/a/.%2e/../v1/x"):
        assert (await edge.refuses(get(spelling))).status == 401


async def test_every_method_that_the_edge_knows_is_forwarded(edge: Edge) -> None:
    client = await edge.client()
    upstream = None
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        await client.sends(head(f"{method} /public/ HTTP/1.1", "Host: edge.test"))
        upstream = upstream or await edge.upstream.accepts()
        assert (await upstream.gets_request()).first == f"{method} /public/ HTTP/1.1"
        await upstream.sends(ok())
        assert (await client.gets_answer()).status == 200


async def test_bodies_of_requests_whose_methods_usually_have_none_are_forwarded(edge: Edge) -> None:
    request, _ = await edge.passes(
        head("DELETE /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 3") + b"abc", ok()
    )
    assert request.body == b"abc"


@pytest.mark.parametrize("status", [200, 201, 206, 301, 302, 400, 404, 418, 429, 500, 503, 299, 599])
async def test_any_final_status_passes_as_it_is(edge: Edge, status: int) -> None:
    _, answer = await edge.passes(get(), head(f"HTTP/1.1 {status} Some Reason", "Content-Length: 2") + b"{}")
    assert answer.first == f"HTTP/1.1 {status} Some Reason"
    assert answer.body == b"{}"


async def test_a_key_opens_a_route_that_asks_for_one(edge: Edge) -> None:
    for fields in ((f"Authorization: Bearer {UNLIMITED}",), (f"X-API-Key: {UNLIMITED}",)):
        _, answer = await edge.passes(get("/v1/x", *fields), ok())
        assert answer.status == 200


async def test_interim_answers_pass_at_once(edge: Edge) -> None:
    """RFC 9110 section 15.2."""
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload"))
    hints = await client.gets_head()
    assert hints.first == "HTTP/1.1 103 Early Hints"
    assert hints["Link"] == "</style.css>; rel=preload"
    await upstream.sends(head("HTTP/1.1 102 Processing"), ok())
    assert (await client.gets_head()).status == 102
    assert (await client.gets_answer()).body == b"hello"


async def test_an_http_1_0_client_is_spared_interim_answers(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(b"GET /public/ HTTP/1.0\r\n\r\n")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 103 Early Hints", "Link: <a>"), ok())
    assert (await client.gets_answer()).status == 200


async def test_a_client_that_expects_100_sends_its_body_when_the_upstream_says_so(edge: Edge) -> None:
    """RFC 9110 section 10.1.1."""
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 3", "Expect: 100-continue"))
    upstream = await edge.upstream.accepts()
    request = await upstream.gets_head()
    assert request["Expect"] == "100-continue"
    await upstream.sends(head("HTTP/1.1 100 Continue"))
    assert (await client.gets_head()).status == 100
    await client.sends(b"abc")
    await upstream.gets(b"abc")
    await upstream.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_a_client_that_is_refused_its_100_is_not_waited_for(edge: Edge) -> None:
    """RFC 9110 section 10.1.1: it may send the body or not, so nobody knows where its next request begins."""
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 3", "Expect: 100-continue"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(head("HTTP/1.1 413 Content Too Large", "Content-Length: 0"))
    answer = await client.gets_answer()
    assert answer.status == 413
    assert answer["Connection"] == "close"
    await client.gets_eof()
    assert await upstream.gets_cut() == b""
