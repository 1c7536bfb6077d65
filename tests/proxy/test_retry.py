"""A kept connection that turns out dead: asked once more where that is safe, and only there (RFC 9112 section 9.3)."""

import pytest

from tests.proxy.test_faults import is_fault
from tests.proxy.transcript import Edge, get, head, ok, post
from tests.proxy.wire import Wire


async def kept(edge: Edge) -> tuple[Wire, Wire]:
    """A client, and an upstream connection that has served a request."""
    client = await edge.client()
    await client.sends(get("/public/first"))
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    await client.gets_answer()
    return client, upstream


@pytest.mark.parametrize("how", ["closes", "aborts"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_safe_request_is_sent_again_over_a_new_connection(edge: Edge, how: str, method: str) -> None:
    client, stale = await kept(edge)
    await client.sends(head(f"{method} /public/x HTTP/1.1", "Host: h"))
    first = await stale.gets_request()
    getattr(stale, how)()
    another = await edge.upstream.accepts()
    again = await another.gets_request()
    assert again.raw == first.raw
    await another.sends(ok(b"") if method == "HEAD" else ok())
    assert (await client.gets_answer(method)).status == 200
    assert edge.metrics("edge_upstream_errors_total") == {}


async def test_a_put_whose_body_is_all_here_is_sent_again_whole(edge: Edge) -> None:
    client, stale = await kept(edge)
    await client.sends(head("PUT /public/x HTTP/1.1", "Host: h", "Content-Length: 3") + b"abc")
    assert (await stale.gets_request()).body == b"abc"
    stale.closes()
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).body == b"abc"
    await another.sends(ok())
    assert (await client.gets_answer()).status == 200


async def test_a_put_whose_body_came_in_pieces_is_not_sent_again(edge: Edge) -> None:
    client, stale = await kept(edge)
    await client.sends(head("PUT /public/x HTTP/1.1", "Host: h", "Content-Length: 3") + b"ab")
    await stale.gets_head()
    await stale.gets(b"ab")
    await client.sends(b"c")
    await stale.gets(b"c")
    stale.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_may_have_done_something_is_not_sent_again(edge: Edge, method: str) -> None:
    client, stale = await kept(edge)
    await client.sends(head(f"{method} /public/x HTTP/1.1", "Host: h", "Content-Length: 0"))
    await stale.gets_request()
    stale.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")


async def test_it_is_sent_again_once_only(edge: Edge) -> None:
    client, stale = await kept(edge)
    await client.sends(get())
    await stale.gets_request()
    stale.closes()
    another = await edge.upstream.accepts()
    await another.gets_request()
    another.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")


async def test_over_a_new_connection_nothing_is_sent_again(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    upstream.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\nConte", head("HTTP/1.1 103 Early Hints")])
async def test_after_any_byte_of_an_answer_nothing_is_sent_again(edge: Edge, begun: bytes) -> None:
    client, stale = await kept(edge)
    await client.sends(get())
    await stale.gets_request()
    await stale.sends(begun)
    await edge.settles()
    stale.closes()
    if begun.endswith(b"\r\n\r\n"):
        assert (await client.gets_head()).status == 103
    is_fault(await client.gets_answer(), 502, "connection_terminated")


async def test_a_retry_that_finds_nobody_is_a_fault(edge: Edge) -> None:
    client, stale = await kept(edge)
    await client.sends(get())
    await stale.gets_request()
    edge.upstream.refuses()
    stale.closes()
    is_fault(await client.gets_answer(), 502, "connection_refused")


async def test_a_retry_is_one_request_to_the_client_the_limit_and_the_bill(edge: Edge) -> None:
    client, stale = await kept(edge)
    before = edge.usage()
    await client.sends(get())
    await stale.gets_request()
    stale.closes()
    another = await edge.upstream.accepts()
    await another.gets_request()
    await another.sends(ok())
    await client.gets_answer()
    assert edge.usage() == {key: n + 1 for key, n in before.items()}
    assert edge.count("edge_requests_total", "public", "-", "200") == 2


async def test_a_connection_closed_while_the_answer_is_awaited_by_many_frees_each(edge: Edge) -> None:
    """Two clients, two kept connections, both dead: each request finds its own new one."""
    clients = [await edge.client() for _ in range(2)]
    wires = []
    for client in clients:
        await client.sends(get())
        wires.append(await edge.upstream.accepts())
    for client, wire in zip(clients, wires, strict=True):
        await wire.gets_request()
        await wire.sends(ok())
        await client.gets_answer()
    for client in clients:
        await client.sends(get())
    for wire in wires:
        await wire.gets_request()
        wire.aborts()
    for _ in clients:
        another = await edge.upstream.accepts()
        await another.gets_request()
        await another.sends(ok())
    for client in clients:
        assert (await client.gets_answer()).status == 200


async def test_a_post_finds_no_connection_that_is_known_to_be_closed(edge: Edge) -> None:
    client, stale = await kept(edge)
    stale.closes()
    await edge.until(lambda: not edge.endpoint().idle)
    await client.sends(post(b"abc"))
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).body == b"abc"
    await another.sends(ok())
    assert (await client.gets_answer()).status == 200
