"""How long connections last, on both sides: reuse, its bounds, and who closes when (RFC 9112 section 9)."""

import pytest

from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import Wire


async def exchanged(client: Wire, upstream: Wire, answer: bytes = b"") -> None:
    """One ordinary exchange over connections that are there."""
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(answer or ok())
    assert (await client.gets_answer()).status == 200


async def test_both_connections_serve_one_request_after_another(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    for _ in range(5):
        await exchanged(client, upstream)


async def test_clients_share_the_connections_to_an_upstream(edge: Edge) -> None:
    first, second = await edge.client(), await edge.client()
    await first.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await first.gets_answer()
    await exchanged(second, upstream)
    await exchanged(first, upstream)


async def test_requests_at_the_same_time_have_connections_of_their_own(edge: Edge) -> None:
    first, second = await edge.client(), await edge.client()
    await first.sends(get("/public/1"))
    one = await edge.upstream.accepts()
    assert (await one.gets_request()).first.split()[1] == "/public/1"
    await second.sends(get("/public/2"))
    other = await edge.upstream.accepts()
    assert (await other.gets_request()).first.split()[1] == "/public/2"
    assert edge.endpoint().outstanding == 2
    await other.sends(ok(b"2"))
    assert (await second.gets_answer()).body == b"2"
    await one.sends(ok(b"1"))
    assert (await first.gets_answer()).body == b"1"
    # The one that was used last is used next.
    await exchanged(first, one)


async def test_no_more_idle_connections_are_kept_than_the_pool_holds(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["pool"] = 1
    first, second = await edge.client(), await edge.client()
    await first.sends(get())
    one = await edge.upstream.accepts()
    await second.sends(get())
    other = await edge.upstream.accepts()
    for client, upstream in ((first, one), (second, other)):
        await upstream.gets_request()
        await upstream.sends(ok())
        await client.gets_answer()
    await other.gets_eof()
    await exchanged(second, one)


async def test_a_client_that_asks_to_close_is_told_so_and_closed_after_its_answer(edge: Edge) -> None:
    """RFC 9112 section 9.6. The upstream's connection has nothing to do with that."""
    client = await edge.client()
    await client.sends(get("/public/", "Connection: close"))
    upstream = await edge.upstream.accepts()
    assert "Connection" not in await upstream.gets_request()
    await upstream.sends(ok())
    answer = await client.gets_answer()
    assert answer["Connection"] == "close"
    await client.gets_eof()
    await exchanged(await edge.client(), upstream)


async def test_what_a_client_sends_after_it_asked_to_close_is_not_served(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get("/public/1", "Connection: close"), get("/public/2"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    assert (await client.gets_answer()).status == 200
    await client.gets_eof()
    await edge.settles()
    assert upstream.has() == b""


@pytest.mark.parametrize(
    "answered",
    [
        ok(b"hello", "Connection: close"),
        ok(b"hello", "Connection: Close, X-Hop", "X-Hop: 1"),
        head("HTTP/1.1 200 OK", "Connection: close", "Transfer-Encoding: chunked") + chunks(b"hello"),
    ],
)
async def test_an_upstream_that_asks_to_close_is_closed_and_the_client_hears_nothing_of_it(
    edge: Edge, answered: bytes
) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(answered)
    answer = await client.gets_answer()
    assert answer.body == b"hello"
    assert "Connection" not in answer
    assert "X-Hop" not in answer
    await upstream.gets_eof()
    await client.sends(get())
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_an_idle_connection_that_the_upstream_closes_is_used_no_more(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    assert len(edge.endpoint().idle) == 1
    upstream.closes()
    await edge.until(lambda: not edge.endpoint().idle)
    await client.sends(get())
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok())
    assert (await client.gets_answer()).status == 200


@pytest.mark.parametrize("unasked", [b"x", ok(b"poison"), head("HTTP/1.1 408 Request Timeout", "Content-Length: 0")])
async def test_bytes_on_an_idle_connection_are_nobodys_answer(edge: Edge, unasked: bytes) -> None:
    """RFC 9112 section 9.2: or the next client gets what was meant for no one."""
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    await upstream.sends(unasked)
    await upstream.gets_cut()
    await client.sends(get())
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok(b"mine"))
    assert (await client.gets_answer()).body == b"mine"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (get(), head("HTTP/1.1 304 Not Modified", "Content-Length: 6") + b"poison"),
        (get(), head("HTTP/1.1 204 No Content") + b"x"),
        (head("HEAD /public/ HTTP/1.1", "Host: h"), ok(b"hello")),
    ],
)
async def test_a_body_where_none_can_be_is_dropped_with_its_connection(
    edge: Edge, asked: bytes, answered: bytes
) -> None:
    """RFC 9112 section 6.3: it would be taken for the next client's answer."""
    client = await edge.client()
    await client.sends(asked)
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(answered)
    assert (await client.gets_answer(asked.split()[0].decode())).body == b""
    await upstream.gets_cut()
    assert client.has() == b""
    await is_served_elsewhere(edge, client)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (get(), ok(b"hello") + b"x"),
        (get(), ok(b"hello") + ok(b"poison")),
        (get(), ok(b"") + ok(b"poison")),
        (post(b"abc"), ok(b"hello") + b"x"),
    ],
)
async def test_an_answer_that_goes_on_behind_its_end_is_a_fault(edge: Edge, asked: bytes, answered: bytes) -> None:
    """RFC 9112 section 6.3: its length is wrong, or what follows is somebody's forgery."""
    client = await edge.client()
    await client.sends(asked)
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(answered)
    answer = await client.gets_answer()
    assert (answer.status, answer["Proxy-Status"]) == (502, "edgeproxy; error=http_protocol_error")
    await upstream.gets_cut()
    await is_served_elsewhere(edge, client)


@pytest.mark.parametrize(
    ("passed", "last"),
    [(ok(b"hello")[:-2], b"lo"), (head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunks(b"hello"))],
)
async def test_an_answer_that_goes_on_behind_its_end_once_it_was_passed_on_is_cut_off(
    edge: Edge, passed: bytes, last: bytes
) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(passed)
    await client.gets_head()
    await upstream.sends(last, b"poison")
    assert await client.gets_reset() in (b"hel", b"")
    await upstream.gets_cut()


async def is_served_elsewhere(edge: Edge, client: Wire) -> None:
    """The client's next request goes over another connection."""
    await client.sends(get())
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok(b"mine"))
    assert (await client.gets_answer()).body == b"mine"


async def test_an_idle_client_is_closed_after_its_time(edge: Edge) -> None:
    edge.config["limits"] = {"keepalive_idle": "50ms"}
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    await client.gets_eof()


async def test_an_idle_upstream_connection_is_closed_after_its_time(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "50ms"}
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    await upstream.gets_eof()
    assert not edge.endpoint().idle
    assert not client.at_end()


async def test_a_client_that_has_closed_its_side_still_gets_its_answer_and_then_the_end(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    client.sends_eof()
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    assert (await client.gets_answer()).body == b"hello"
    await client.gets_eof()


async def test_a_half_closed_client_gets_the_answers_to_all_that_it_has_sent(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    client = await edge.client()
    await client.sends(*(get(f"/public/{n}") for n in range(5)))
    client.sends_eof()
    for n in range(5):
        assert (await client.gets_answer()).body == b"GET /public/%d HTTP/1.1" % n
    await client.gets_eof()


async def test_a_half_closed_client_gets_a_long_answer_whole(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    client.sends_eof()
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    await client.gets_head()
    for _ in range(3):
        await upstream.sends(b"1\r\nx\r\n")
        await client.gets(b"1\r\nx\r\n")
    await upstream.sends(b"0\r\n\r\n")
    await client.gets(b"0\r\n\r\n")
    await client.gets_eof()


async def test_a_half_closed_client_whose_last_request_is_refused_is_closed(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    await client.sends(get("/public/1"), get("/nowhere"))
    client.sends_eof()
    assert (await client.gets_answer()).status == 200
    assert (await client.gets_answer()).status == 404
    await client.gets_eof()


async def test_a_client_that_closes_without_a_word_is_closed(edge: Edge) -> None:
    client = await edge.client()
    client.sends_eof()
    await client.gets_eof()


@pytest.mark.parametrize(
    ("fields", "kept"),
    [(("Content-Length: 5",), True), (("Transfer-Encoding: chunked",), True), ((), False)],
    ids=["length", "chunked", "neither"],
)
async def test_after_head_a_connection_is_kept_where_its_answer_says_how_a_body_would_end(
    edge: Edge, fields: tuple[str, ...], kept: bool
) -> None:
    """Without that a server may send the body, against the rules, and close. Found by tests/fuzz."""
    client = await edge.client()
    await client.sends(head("HEAD /public/ HTTP/1.1", "Host: h"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", *fields))
    await client.gets_answer("HEAD")
    assert bool(edge.endpoint().idle) is kept
    if not kept:
        await upstream.gets_eof()
