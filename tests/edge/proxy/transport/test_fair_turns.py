"""Clients beside connections whose input is costly: they are answered while that input waits, and all of it is served.

A slice is as short as can be, so that the order of events does not depend on the machine.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgeproxy.edge.proxy.transport import turns
from loadtest.testbed.http_client import PATIENCE
from tests.edge.proxy import tunnels
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.transport.test_server_tls import listens
from tests.support.http2_wire import http2
from tests.support.transcript import KEY, Edge, get, head, ok
from tests.support.wire import Wire

COUNT = 3000
CHUNKS = b"1\r\nx\r\n" * 30_000
EVENTS = b"data: x\n\n" * 15_000
FRAMES = b"\x81\x01x" * 60_000
MASKED_FRAMES = b"\x81\x81\0\0\0\0x" * 30_000
NOWHERE = get("/nowhere")


@pytest.fixture(autouse=True)
def shortest_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE_SECONDS", 0.0)


async def is_answered_meanwhile(edge: Edge, polite: Wire) -> None:
    """A client that asks once input waits is answered while it still waits."""
    await edge.until(lambda: edge.runtime.turns.waiting, "input waits")
    assert (await polite.asks(NOWHERE)).status == 404
    assert edge.runtime.turns.waiting


async def pipelined(edge: Edge) -> Callable[[], Awaitable[None]]:
    hostile = await edge.client()
    await hostile.sends(*(get(f"/nowhere/{n}") for n in range(COUNT)))

    async def ends() -> None:
        for _ in range(COUNT):
            assert (await hostile.gets_answer()).status == 404

    return ends


async def chunks_up(edge: Edge) -> Callable[[], Awaitable[None]]:
    client, upstream = await edge.opens(head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"))
    await client.sends(CHUNKS)

    async def ends() -> None:
        await client.sends(b"0\r\n\r\n")
        size = 0
        while line := int((await upstream.gets_until(b"\r\n")), 16):
            size += line
            assert await upstream.gets_bytes(line + 2) == b"x" * line + b"\r\n"
        await upstream.gets(b"\r\n")
        assert size == 30_000
        await upstream.tells(client, ok())

    return ends


async def chunks_down(edge: Edge) -> Callable[[], Awaitable[None]]:
    client, upstream = await edge.opens(get())
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), CHUNKS)

    async def ends() -> None:
        await upstream.sends(b"0\r\n\r\n")
        assert (await client.gets_answer()).body == b"x" * 30_000

    return ends


async def events_down(edge: Edge) -> Callable[[], Awaitable[None]]:
    client, upstream = await edge.opens(get("/v1/x", f"X-API-Key: {KEY}"))
    fields = ("HTTP/1.1 200 OK", "Content-Type: text/event-stream", f"Content-Length: {len(EVENTS)}")
    await upstream.sends(head(*fields), EVENTS)

    async def ends() -> None:
        assert (await client.gets_answer()).body == EVENTS

    return ends


async def frames_up(edge: Edge) -> Callable[[], Awaitable[None]]:
    client, upstream = await tunnels.tunnel(edge)
    await client.sends(MASKED_FRAMES)

    async def ends() -> None:
        assert await upstream.gets_bytes(len(MASKED_FRAMES)) == MASKED_FRAMES
        await tunnels.ends(client, upstream)

    return ends


async def frames_down(edge: Edge) -> Callable[[], Awaitable[None]]:
    client, upstream = await tunnels.tunnel(edge)
    await upstream.sends(FRAMES)

    async def ends() -> None:
        assert await client.gets_bytes(len(FRAMES)) == FRAMES
        await tunnels.ends(client, upstream)

    return ends


KINDS = (pipelined, chunks_up, chunks_down, events_down, frames_up, frames_down)


@pytest.mark.parametrize("kind", KINDS)
async def test_client_is_answered_beside_costly_input(
    edge: Edge, kind: Callable[[Edge], Awaitable[Callable[[], Awaitable[None]]]]
) -> None:
    if kind is events_down:
        edge.config["meters"] = {"out": {"count": "output_tokens", "missing": "bytes/10"}}
        for route in edge.config["routes"]:
            if route["path"] == "/v1/*":
                route["response_usage"] = "openai"
    polite = await edge.client()
    await polite.asks(NOWHERE)
    ends = await kind(edge)
    await is_answered_meanwhile(edge, polite)
    await ends()
    await edge.until(lambda: not edge.runtime.turns.waiting, "nothing waits")


async def test_many_connections_take_turns(edge: Edge) -> None:
    many = [await edge.client() for _ in range(6)]
    polite = await edge.client()
    await polite.asks(NOWHERE)
    for each in many:
        await each.sends(NOWHERE * 1000)
    await is_answered_meanwhile(edge, polite)

    async def gets(wire: Wire) -> None:
        for _ in range(1000):
            assert (await wire.gets_answer()).status == 404

    await asyncio.gather(*map(gets, many))


async def test_records_of_a_byte_wait_for_their_turns(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    listens(edge, authority, ("edge.test",))
    context: ssl.SSLContext = authority.trusted()
    polite, hostile = await edge.secure_client(context), await edge.secure_client(context)
    await polite.asks(NOWHERE)
    request = NOWHERE * 200
    for at in range(len(request)):
        hostile.tls.write(request[at : at + 1])
    await hostile._sends_what_there_is()
    await is_answered_meanwhile(edge, polite)
    for _ in range(200):
        assert (await hostile.gets_answer()).status == 404


async def test_forwarded_requests_keep_their_order_among_refused_ones(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    client = await edge.client()
    script = range(1500)
    await client.sends(*(get(f"/public/{n}" if n % 50 == 0 else f"/nowhere/{n}") for n in script))
    for n in script:
        answer = await client.gets_answer()
        assert (answer.status, n % 50 == 0) in ((200, True), (404, False))
        if answer.status == 200:
            assert answer.body == b"GET /public/%d HTTP/1.1" % n


async def test_half_closed_client_gets_all_its_answers(edge: Edge) -> None:
    client, upstream = await edge.forwards(get(), NOWHERE * 60)
    client.sends_eof()
    await edge.until(lambda: any(client.half_closed for client in edge.runtime.connections.clients))
    await upstream.tells(client, ok())
    for _ in range(60):
        assert (await client.gets_answer()).status == 404
    await client.gets_eof()


async def test_lost_connection_leaves_nothing_that_waits(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(NOWHERE * COUNT)
    await edge.until(lambda: edge.runtime.turns.waiting, "input waits")
    client.aborts()
    await edge.until(lambda: not edge.runtime.connections.clients)
    await edge.until(lambda: not edge.runtime.turns.waiting, "nothing waits")


async def loses_a_client_with_thirty_requests(edge: Edge) -> None:
    """Thirty requests over HTTP/2 wait for their answers when the client leaves; some have not ended yet."""
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    client = await http2(edge)
    for _ in range(30):
        await client.begins_request("GET", "/public/")
    for _ in range(30):
        await edge.upstream.takes()
    client.wire.aborts()
    async with asyncio.timeout(PATIENCE):
        while not edge.runtime.connections.lost:  # noqa: ASYNC110, the requests end within a few turns of the loop
            await asyncio.sleep(0)


async def test_requests_of_a_lost_connection_end(edge: Edge) -> None:
    await loses_a_client_with_thirty_requests(edge)
    await edge.until(lambda: not edge.runtime.connections.upstreams, "all connections to upstreams are closed")
    assert not edge.runtime.connections.lost


async def test_draining_worker_ends_the_requests_of_a_lost_connection(edge: Edge) -> None:
    await loses_a_client_with_thirty_requests(edge)
    await edge.worker.drain(5.0)
    assert not edge.runtime.connections.lost


async def test_bytes_behind_an_answer_are_no_next_answer(edge: Edge) -> None:
    """The answer ends within a piece, and its connection must not be lent with the pieces after it."""
    client, upstream = await edge.opens(get())
    surplus = ok(b"stolen") * 1000
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), CHUNKS, b"0\r\n\r\n", surplus)
    assert (await client.gets_answer()).body == b"x" * 30_000
    await upstream.gets_cut()
    again = await edge.brings(client, get())
    await again.tells(client, ok(b"own"))
