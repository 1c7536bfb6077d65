"""Large bodies and slow peers: the edge reads one side no faster than the other side receives."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from time import monotonic

import pytest

from edgeproxy.edge.proxy.connections import probe_schedule
from edgeproxy.edge.proxy.connections.client_states import LAST
from tests.support.transcript import Edge, get, head, ok, post
from tests.support.wire import Wire, narrow

MIB = 1 << 20
SIZES = pytest.mark.parametrize("size", [64 << 10, 5 * MIB], ids=["64KiB", "5MiB"])
MOST_HELD = MIB
"""Bytes that the edge may hold for a connection whose peer reads nothing: one read plus the transport's buffer."""


def payload(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


async def one_more(client: Wire, upstream: Wire) -> None:
    """Check that both connections still serve a request."""
    await client.sends(get())
    assert (await upstream.serves(client, ok(b"one more"))).body == b"one more"


# ---- large bodies


@SIZES
async def test_a_large_answer_arrives_whole(edge: Edge, size: int, seed: int) -> None:
    body = payload(size, seed)
    client, upstream = await edge.opens(get())
    _, answer = await asyncio.gather(upstream.sends(ok(body)), client.gets_answer())
    assert answer.body == body
    await one_more(client, upstream)


@SIZES
async def test_a_large_request_arrives_whole(edge: Edge, size: int, seed: int) -> None:
    body = payload(size, seed)
    client = await edge.client()

    async def gets() -> Wire:
        upstream = await edge.upstream.accepts()
        assert (await upstream.gets_request()).body == body
        await upstream.sends(ok())
        return upstream

    _, upstream = await asyncio.gather(client.sends(post(body)), gets())
    assert (await client.gets_answer()).body == b"hello"
    await one_more(client, upstream)


# ---- peers that read nothing


async def test_each_message_is_written_before_the_next_one_is_handled(edge: Edge) -> None:
    """Writes do not wait for the end of the event loop's turn, which may handle many messages."""
    client, upstream = await edge.opens(get())
    await upstream.tells(client, ok(b"first"))
    (held,) = edge.runtime.connections.clients
    (server,) = edge.endpoint().idle
    left = []

    def looking(writes: Callable[[bytes], None], transport: asyncio.Transport, data: bytes) -> None:
        writes(data)
        left.append(transport.get_write_buffer_size())

    held.write = partial(looking, held.write, held.transport)
    server.write = partial(looking, server.write, server.transport)
    await one_more(client, upstream)
    assert left == [0, 0]


async def test_the_edge_reads_an_upstream_no_faster_than_the_client_reads(edge: Edge) -> None:
    client, upstream = await edge.opens(get())
    await upstream.sends(head("HTTP/1.1 200 OK", f"Content-Length: {64 * MIB}"))
    await client.gets_head()
    sent = await upstream.sends_while_taken(bytes(1 << 16), 64 * MIB)
    assert sent < 64 * MIB
    (held,) = edge.runtime.connections.clients
    assert held.write_paused
    assert held.transport.get_write_buffer_size() < MOST_HELD
    left = 64 * MIB - sent

    async def rest() -> None:
        await upstream.sends(bytes(left))

    async def takes() -> None:
        taken = 0
        while taken < 64 * MIB:
            taken += client.takes_all()
            await asyncio.sleep(0)
        assert taken == 64 * MIB

    await asyncio.gather(rest(), takes())
    await one_more(client, upstream)


@pytest.mark.parametrize("framing", [f"Content-Length: {64 * MIB}", "Transfer-Encoding: chunked"])
async def test_the_edge_reads_a_client_no_faster_than_the_upstream_reads(edge: Edge, framing: str) -> None:
    client, upstream = await edge.opens(head("POST /public/ HTTP/1.1", "Host: edge.test", framing))
    piece = bytes(1 << 16) if "Length" in framing else b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    sent = await client.sends_while_taken(piece, 64 * MIB)
    assert sent < 64 * MIB
    (held,) = edge.runtime.connections.clients
    assert not held.reading
    assert held.exchange is not None
    assert held.exchange.server is not None
    assert held.exchange.server.transport.get_write_buffer_size() < MOST_HELD
    before = sent
    await edge.until(lambda: upstream.takes_all() > 2 * MIB)
    sent = await client.sends_while_taken(piece, 4 * MIB)
    assert sent > 0, f"the edge goes on reading the client after {before} bytes"
    client.aborts()
    await upstream.gets_cut()


async def test_a_request_body_is_bounded_while_its_upstream_connects(edge: Edge) -> None:
    client = await edge.client()
    connect, connecting = edge.runtime.connector.connect, []
    edge.runtime.connector.connect = connecting.append
    size = 64 * MIB
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", f"Content-Length: {size}"))
    sent = await client.sends_while_taken(bytes(1 << 16), size)
    assert sent < size
    (exchange,) = connecting
    assert len(exchange.message) < MOST_HELD
    connect(exchange)
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    taken = 0

    def has_taken() -> bool:
        nonlocal taken
        taken += upstream.takes_all()
        return taken > 2 * MIB

    await edge.until(has_taken)
    client.aborts()
    await upstream.gets_cut()
    edge.runtime.connector.connect = connect


async def test_slow_upstream_pauses_reading_of_the_client(edge: Edge) -> None:
    client, upstream = await edge.opens(get())
    await upstream.tells(client, ok())
    (kept,) = edge.endpoint().idle
    narrow(kept.transport)
    kept.transport.set_write_buffer_limits(high=1000)
    await client.sends(get(), post(bytes(40_000)))
    await upstream.serves(client, ok())
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: kept.write_paused)
    await client.sends_while_taken(get() * 100, 200_000)
    assert len(held.buffer) == 0
    assert not held.reading
    assert len((await upstream.gets_request()).body) == 40_000
    client.aborts()
    await upstream.sends(ok())
    await upstream.gets_cut()


async def test_upstream_connection_of_a_stalled_client_serves_the_next_client(edge: Edge) -> None:
    slow, upstream = await edge.opens(get())
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    held.transport.set_write_buffer_limits(high=MIB)
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 250000"), bytes(200_000))
    await edge.settles()
    # The client no longer reads the last piece.
    held.transport.set_write_buffer_limits(high=held.transport.get_write_buffer_size() + 10_000)
    await upstream.sends(bytes(50_000))
    await edge.until(lambda: held.write_paused and held.exchange is None)
    await one_more(await edge.client(), upstream)
    assert len((await slow.gets_answer()).body) == 250_000


async def test_a_half_closed_client_that_reads_late_gets_every_answer(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))  # A busy machine would see a probe.
    n = 1500
    edge.config["limits"] = {"pipelined": n + 1}
    client, upstream = await edge.opens(get())
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    await client.sends(get("/nowhere") * n)
    client.sends_eof()
    await edge.until(lambda: held.half_closed)
    await upstream.sends(ok())
    await edge.until(lambda: held.write_paused)
    assert (await client.gets_answer()).status == 200
    for _ in range(n):
        assert (await client.gets_answer()).status == 404
    await client.gets_eof()


async def test_responses_to_a_client_that_never_reads_are_bounded(edge: Edge) -> None:
    """Unread refusals take memory of the edge."""
    client = await edge.client()
    sent = await client.sends_while_taken(get("/nowhere") * 1000, 64 * MIB)
    assert sent < 64 * MIB
    (held,) = edge.runtime.connections.clients
    assert not held.reading
    assert held.transport.get_write_buffer_size() < MOST_HELD
    assert len(held.buffer) < MOST_HELD
    client.aborts()


async def test_a_slow_client_gets_the_end_of_a_connection_that_is_closing(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The linger time of a closing connection does not apply while its client still reads."""
    monkeypatch.setattr("edgeproxy.edge.proxy.connections.client_transport.LINGER_SECONDS", 0.01)
    client, upstream = await edge.opens(get("/public/", "Connection: close") + get())
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    held.transport.set_write_buffer_limits(high=MIB)
    await upstream.sends(ok(bytes(600_000)))
    await edge.until(lambda: held.state > LAST)
    assert held.transport.get_write_buffer_size()
    later = monotonic() + 0.1
    await edge.until(lambda: monotonic() > later)
    assert len((await client.gets_answer()).body) == 600_000
    await client.gets_eof()


async def test_closing_connection_is_cut_if_its_client_does_not_read(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "100ms"}
    client, upstream = await edge.opens(get("/public/", "Connection: close") + get())
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    held.transport.set_write_buffer_limits(high=MIB)
    await upstream.sends(ok(bytes(600_000)))
    await edge.until(lambda: held.state > LAST)
    await edge.until(lambda: not edge.runtime.connections.clients)
    await client.gets_cut()


async def test_a_client_that_stops_reading_during_the_connect_pauses_the_upstream(edge: Edge) -> None:
    """The edge does not read the upstream until the client reads again."""
    client = await edge.client()
    connect, connecting = edge.runtime.connector.connect, []
    edge.runtime.connector.connect = connecting.append
    await client.sends(get())
    await edge.until(lambda: connecting)
    (held,) = edge.runtime.connections.clients
    held.pause_writing()  # The transport does this when earlier data is unread.
    connect(connecting[0])
    upstream = await edge.upstream.takes()
    await upstream.sends(ok())
    await edge.settles()
    assert client.has() == b""
    held.resume_writing()
    assert (await client.gets_answer()).body == b"hello"
    edge.runtime.connector.connect = connect


async def test_a_client_that_stops_reading_during_buffering_pauses_the_upstream(edge: Edge) -> None:
    """The edge does not read the kept connection with the request until the client reads again."""
    edge.config["upstreams"]["api"]["buffer"] = "1MiB"
    client, upstream = await edge.opens(get())
    await upstream.tells(client, ok())
    (held,) = edge.runtime.connections.clients
    await client.sends(head("POST /public/ HTTP/1.1", "Host: edge.test", "Content-Length: 4"))
    await edge.until(lambda: held.exchange is not None)
    held.pause_writing()  # The transport does this when the 100 is unread.
    await client.sends(b"body")
    await upstream.gets_request()
    await upstream.sends(ok())
    await edge.settles()
    assert client.has() == b""
    held.resume_writing()
    assert (await client.gets_answer()).body == b"hello"


# ---- responses before the end of the request


async def test_an_early_response_ends_an_unread_upload(edge: Edge) -> None:
    """RFC 9112 section 9.6: the response reaches the client even though it is still sending."""
    client, upstream = await edge.opens(
        head("POST /public/ HTTP/1.1", "Host: edge.test", f"Content-Length: {64 * MIB}")
    )
    await client.sends_while_taken(bytes(1 << 16), 32 * MIB)
    answer = await upstream.tells(client, head("HTTP/1.1 413 Content Too Large", "Content-Length: 3") + b"no.")
    assert (answer.status, answer["Connection"], answer.body) == (413, "close", b"no.")
    await client.gets_eof()
    await upstream.gets_cut()


async def test_an_early_response_to_an_unforwarded_body_keeps_the_client(edge: Edge) -> None:
    """The edge has the whole body, but the upstream has not read it, so its connection cannot serve another request."""
    client, upstream = await edge.opens(get())
    await upstream.tells(client, ok())
    (kept,) = edge.endpoint().idle
    narrow(kept.transport)
    kept.transport.set_write_buffer_limits(high=1000)
    await client.sends(post(bytes(60_000)))
    await upstream.gets_head()
    await edge.until(lambda: kept.transport.get_write_buffer_size() > 1000)
    answer = await upstream.tells(client, head("HTTP/1.1 413 Content Too Large", "Content-Length: 3") + b"no.")
    assert (answer.status, answer.body) == (413, b"no.")
    assert "Connection" not in answer
    await client.sends(get("/public/next"))
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).first == "GET /public/next HTTP/1.1"
    assert (await another.tells(client, ok())).status == 200
    await upstream.gets_cut()
