"""WebSocket: the handshake, and what passes through the tunnel after it (RFC 9110 section 7.8, RFC 6455)."""

import asyncio
import random

import pytest
from h2.events import DataReceived

from tests.edge.proxy.tunnels import SWITCH, UPGRADE, ends, tunnel
from tests.support.http2_wire import http2, opens_websocket
from tests.support.transcript import KEY, Edge, get, head, ok
from tests.support.wire import narrow

MIB = 1 << 20


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_tunnel_delivers_all_bytes_after_the_other_side_closes(edge: Edge, first: str) -> None:
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
async def test_tunnel_applies_back_pressure_to_both_sides(edge: Edge, slow: str) -> None:
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


async def test_upgrade_with_several_protocols_asks_only_for_websocket(edge: Edge) -> None:
    request, _ = await edge.passes(get("/public/ws", "Connection: Upgrade", "Upgrade: h2c, WebSocket"), ok())
    assert request["Upgrade"] == "websocket"


async def test_an_upgrade_with_a_body_is_none(edge: Edge) -> None:
    """Parsers could disagree about the start of the tunnel."""
    asked = head("POST /public/ws HTTP/1.1", "Host: h", "Content-Length: 3", *UPGRADE[:2]) + b"abc"
    request, answer = await edge.passes(asked, ok())
    assert "Upgrade" not in request
    assert request.body == b"abc"
    assert answer.status == 200


async def test_tunnel_counts_as_one_request_before_its_101_answer(edge: Edge) -> None:
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


CLOSE_FRAME = b"\x88\x02\x03\xe9"


def set_tunnel_timeout(edge: Edge, of: str) -> None:
    owner = edge.config["upstreams"]["api"] if of == "upstream" else edge.config["routes"][1]
    owner["timeouts"] = {**owner.get("timeouts", {}), "tunnel": "50ms"}


@pytest.mark.parametrize("of", ["upstream", "route"])
async def test_a_silent_websocket_gets_a_close_frame_on_both_sides(edge: Edge, of: str) -> None:
    set_tunnel_timeout(edge, of)
    client, upstream = await tunnel(edge)
    await client.gets(CLOSE_FRAME)
    masked = await upstream.gets_bytes(8)
    assert masked[:2] == b"\x88\x82"
    await client.gets_cut()  # Neither has answered.
    await upstream.gets_cut()


async def test_a_silent_websocket_over_http2_gets_a_close_frame(edge: Edge) -> None:
    set_tunnel_timeout(edge, "upstream")
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["routes"].append({"path": "/ws", "upstream": "api", "auth": "none"})
    client = await http2(edge)
    number, upstream = await opens_websocket(edge, client)
    assert (await client.next_event(number, DataReceived)).data == CLOSE_FRAME
    assert (await upstream.gets_bytes(8))[:2] == b"\x88\x82"
    assert await client.reset_of(number)
    await upstream.gets_cut()


async def test_a_silent_tunnel_of_another_protocol_is_cut(edge: Edge) -> None:
    set_tunnel_timeout(edge, "upstream")
    edge.config["routes"][1]["upgrade"] = ["other"]
    client, upstream = await edge.opens(get("/public/x", "Connection: Upgrade", "Upgrade: other"))
    await upstream.sends(head("HTTP/1.1 101 Switching Protocols", "Upgrade: other", "Connection: Upgrade"))
    assert (await client.gets_head()).status == 101
    assert await client.gets_cut() == b""
    await upstream.gets_cut()


@pytest.mark.parametrize(
    "end", ["reset", "FIN", "FIN behind a close frame", "END_STREAM", "RST_STREAM", "FIN over HTTP/2"]
)
async def test_closed_websocket_client_frees_its_slot(edge: Edge, end: str) -> None:
    edge.config["tiers"]["basic"] = {"limits": [], "concurrency": 1}
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["routes"].append({"path": "/ws", "upstream": "api"})
    if "HTTP/2" in end or "STREAM" in end:
        streams = await http2(edge)
        number, upstream = await opens_websocket(edge, streams, ("x-api-key", KEY))
        assert edge.in_use() == 1
        if end == "END_STREAM":
            await streams.sends_data(number, b"", ended=True)
        elif end == "RST_STREAM":
            streams.protocol.reset_stream(number)
            await streams.flushes()
        else:
            streams.wire.closes()
    else:
        client, upstream = await tunnel(edge, "/ws", f"X-API-Key: {KEY}")
        assert edge.in_use() == 1
        if end == "reset":
            client.aborts()
        else:
            if "close frame" in end:
                await client.sends(b"\x88\x82\0\0\0\0\x03\xe8")
            client.sends_eof()
    await edge.until(lambda: edge.in_use() == 0, "the place is free")
    assert upstream.open, "the service has not closed its side"
    upstream.closes()


async def test_a_client_half_closed_before_the_switch_is_half_closed_in_the_tunnel(edge: Edge) -> None:
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


async def test_data_of_an_upstream_reaches_the_client_before_its_reset_does(edge: Edge) -> None:
    """It was not read yet when a write to the upstream failed."""
    client, upstream = await tunnel(edge)
    (held,) = edge.runtime.connections.clients
    held.exchange.server.transport.pause_reading()
    await upstream.sends(b"last words")
    upstream.aborts()
    await client.sends(b"to nobody")
    assert await client.gets_bytes(10) == b"last words"
    await client.gets_cut()
