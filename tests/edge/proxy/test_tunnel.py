"""WebSocket: the handshake, and what passes through the tunnel after it (RFC 9110 section 7.8, RFC 6455)."""

import asyncio
import random

import pytest

from tests.edge.proxy.tunnels import SWITCH, UPGRADE, ends, tunnel
from tests.support.transcript import KEY, Edge, get, head, ok
from tests.support.wire import narrow

MIB = 1 << 20


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_the_last_words_of_whoever_closes_second_arrive_whole(edge: Edge, first: str) -> None:
    client, upstream = await tunnel(edge)
    one, other = (client, upstream) if first == "client" else (upstream, client)
    one.sends_eof()
    await other.gets_eof()
    words = random.Random(1).randbytes(3 * MIB)

    async def speaks() -> None:
        await other.sends(words)
        other.closes()

    _, heard = await asyncio.gather(speaks(), one.gets_rest())
    assert heard == words


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_the_last_words_arrive_though_their_hearer_is_slow(edge: Edge, first: str) -> None:
    client, upstream = await tunnel(edge)
    one, other = (client, upstream) if first == "client" else (upstream, client)
    (held,) = edge.runtime.connections.clients
    assert held.exchange is not None
    assert held.exchange.server is not None
    towards = held.transport if first == "client" else held.exchange.server.transport
    narrow(towards)
    towards.set_write_buffer_limits(high=MIB)
    one.sends_eof()
    await other.gets_eof()
    await other.sends(bytes(600_000))
    other.closes()
    await edge.until(lambda: towards.get_write_buffer_size() > 100_000)
    await edge.settles()
    assert await one.gets_rest() == bytes(600_000)


@pytest.mark.parametrize("slow", ["client", "upstream"])
async def test_neither_side_is_read_faster_than_the_other_takes_it(edge: Edge, slow: str) -> None:
    client, upstream = await tunnel(edge)
    quick, idle = (upstream, client) if slow == "client" else (client, upstream)
    sent = await quick.sends_while_taken(bytes(1 << 16), 64 * MIB)
    assert sent < 64 * MIB
    (held,) = edge.runtime.connections.clients
    assert held.exchange is not None
    assert held.exchange.server is not None
    assert held.transport.get_write_buffer_size() < MIB
    assert held.exchange.server.transport.get_write_buffer_size() < MIB
    await edge.until(lambda: idle.takes_all() > 2 * MIB)
    assert await quick.sends_while_taken(bytes(1 << 16), MIB) > 0
    client.aborts()
    await upstream.gets_cut()


async def test_other_protocols_are_not_asked_for(edge: Edge) -> None:
    for fields in (
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: Upgrade", "Upgrade: TLS/1.0"),
        ("Upgrade: websocket",),
        ("Connection: upgrade",),
    ):
        request, answer = await edge.passes(get("/public/ws", *fields), ok())
        assert "Upgrade" not in request
        assert "Connection" not in request
        assert "HTTP2-Settings" not in request
        assert answer.status == 200


async def test_of_several_protocols_only_websocket_is_asked_for(edge: Edge) -> None:
    request, _ = await edge.passes(get("/public/ws", "Connection: Upgrade", "Upgrade: h2c, WebSocket"), ok())
    assert request["Upgrade"] == "websocket"


async def test_an_upgrade_with_a_body_is_none(edge: Edge) -> None:
    """Where the tunnel begins would be a matter of opinion."""
    asked = head("POST /public/ws HTTP/1.1", "Host: h", "Content-Length: 3", *UPGRADE[:2]) + b"abc"
    request, answer = await edge.passes(asked, ok())
    assert "Upgrade" not in request
    assert request.body == b"abc"
    assert answer.status == 200


async def test_a_tunnel_is_one_request_counted_before_the_client_hears_of_it(edge: Edge) -> None:
    client, upstream = await tunnel(edge, "/v1/ws", f"X-API-Key: {KEY}")
    assert edge.usage() == {("acme", "requests", "v1"): 1}
    assert edge.metrics("edge_requests_total") == {("v1", "basic", "101"): [1]}
    await client.reaches(upstream, b"x")
    await ends(client, upstream)
    upstream.closes()
    await edge.until(lambda: not edge.runtime.connections.clients)
    assert edge.usage() == {("acme", "requests", "v1"): 1}
    assert edge.metrics("edge_requests_total") == {("v1", "basic", "101"): [1]}


async def test_a_tunnel_is_not_closed_by_the_deadlines_of_requests(edge: Edge) -> None:
    edge.config["limits"] = {"keepalive_idle": "50ms", "header_timeout": "50ms", "body_idle": "50ms"}
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "50ms", "idle": "50ms"}
    client, upstream = await tunnel(edge)
    for _ in range(2):
        moment = asyncio.get_running_loop().time() + 0.15
        await edge.until(lambda moment=moment: asyncio.get_running_loop().time() > moment)
        await client.reaches(upstream, b"still")
        await upstream.reaches(client, b"there")
    await ends(client, upstream)


async def test_a_tunnel_through_which_nothing_passes_is_closed_in_the_end(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.tunnel.IDLE_SECONDS", 0.05)
    client, upstream = await tunnel(edge)
    await client.gets_cut()
    await upstream.gets_cut()


async def test_a_client_that_closed_its_side_before_the_switch_has_closed_it_in_the_tunnel(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get("/public/ws", *UPGRADE), b"last words")
    client.sends_eof()
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: held.half_closed)
    await upstream.sends(SWITCH)
    await upstream.gets(b"last words")
    await upstream.gets_eof()
    await upstream.sends(b"answer")
    upstream.closes()
    assert (await client.gets_head()).status == 101
    await client.gets(b"answer")
    await client.gets_eof()


async def test_what_an_upstream_had_said_before_it_broke_reaches_the_client_and_then_the_end(edge: Edge) -> None:
    """It was not read yet when a write to the upstream failed."""
    client, upstream = await tunnel(edge)
    (held,) = edge.runtime.connections.clients
    held.exchange.server.transport.pause_reading()
    await upstream.sends(b"last words")
    upstream.aborts()
    await client.sends(b"to nobody")
    assert await client.gets_bytes(10) == b"last words"
    await client.gets_cut()
