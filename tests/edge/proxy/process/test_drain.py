"""Draining a worker: it finishes requests, serves queued connections, and announces the end to its clients."""

import asyncio
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from edgeproxy.edge.proxy.connections.client_states import LAST
from loadtest.testbed.frames import BINARY, TEXT, close, frame
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.leaving import Drain
from tests.edge.proxy.tunnels import SWITCH, UPGRADE, tunnel
from tests.support.transcript import UNLIMITED, Edge, chunks, get, head, ok
from tests.support.wire import Wire, narrow


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.connections.client.LAST_REQUEST_SECONDS", 0.05)


async def test_an_idle_connection_is_closed_without_a_response(edge: Edge) -> None:
    client, upstream = await edge.opens()
    await upstream.tells(client, ok())
    silent = await edge.client()
    drain = Drain(edge)
    await client.gets_eof()
    await silent.gets_eof()
    client.closes()
    silent.closes()
    await drain.ends()


async def test_a_request_sent_on_an_idle_connection_at_the_drain_is_served(edge: Edge) -> None:
    """If the edge closed the connection at once, the client could not know whether its request was processed."""
    client, upstream = await edge.opens()
    await upstream.tells(client, ok())
    drain = Drain(edge)
    await edge.settles()
    await client.sends(get("/public/late"))
    assert (await upstream.gets_request()).first == "GET /public/late HTTP/1.1"
    answer = await upstream.tells(client, ok(b"late"))
    assert (answer.body, answer["Connection"]) == (b"late", "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


@pytest.mark.parametrize(
    "answered",
    [ok(), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"hello")],
    ids=["whole", "chunked"],
)
async def test_a_request_in_progress_is_answered_with_connection_close(edge: Edge, answered: bytes) -> None:
    client, upstream = await edge.opens()
    drain = Drain(edge)
    await edge.settles()
    assert not drain.done
    answer = await upstream.tells(client, answered)
    assert (answer.body, answer["Connection"]) == (b"hello", "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_pipelined_requests_end_with_the_one_in_progress(edge: Edge) -> None:
    client, upstream = await edge.opens(get("/public/1") + get("/public/2"))
    drain = Drain(edge)
    await edge.settles()
    answer = await upstream.tells(client, ok())
    assert (answer.status, answer["Connection"]) == (200, "close")
    await client.gets_eof()
    await edge.settles()
    assert upstream.has() == b""
    client.closes()
    await drain.ends()


@pytest.mark.parametrize("refused", [get("/nowhere"), get("/v1/x"), get("/read/x", f"X-API-Key: {UNLIMITED}")])
async def test_a_refusal_during_a_drain_has_connection_close(edge: Edge, refused: bytes) -> None:
    client = await edge.client()
    await client.sends(refused[:5])
    await edge.settles()
    drain = Drain(edge)
    await edge.settles()
    assert (await client.asks(refused[5:]))["Connection"] == "close"
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_connections_that_wait_to_be_accepted_are_served(edge: Edge) -> None:
    await edge.starts()
    queued = []
    for n in range(5):
        end = socket.create_connection(edge.address)
        end.sendall(get(f"/public/{n}"))
        queued.append(Wire(end))
    edge.clients += queued
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    edge.upstream.begins()
    drain = Drain(edge)
    for n, client in enumerate(queued):
        answer = await client.gets_answer()
        assert answer.body == b"GET /public/%d HTTP/1.1" % n
        assert answer["Connection"] == "close"
        await client.gets_eof()
        client.closes()
    await drain.ends()


async def test_unfinished_requests_are_cut_after_the_drain_time(edge: Edge) -> None:
    waiting, first = await edge.opens()
    begun, second = await edge.opens()
    await second.sends(head("HTTP/1.1 200 OK", "Content-Length: 6"), b"abc")
    await begun.gets_head()
    await begun.gets(b"abc")
    drain = Drain(edge, 0.1)
    assert await waiting.gets_cut() == b""
    assert await begun.gets_cut() == b""
    await first.gets_cut()
    await second.gets_cut()
    await drain.ends()


async def test_another_tunnel_than_a_websocket_lasts_until_the_drain_ends(edge: Edge) -> None:
    client, upstream = await tunnel(edge)
    await client.reaches(upstream, b"still")
    drain = Drain(edge, 0.2)
    await edge.settles()
    await client.reaches(upstream, b"still")
    await upstream.reaches(client, b"there")
    await client.gets_cut()
    await upstream.gets_cut()
    await drain.ends()


AWAY = b"\x88\x02\x03\xe9"
"""A server's close frame with 1001."""
HELLO = b"\x81\x05hello"


async def gets_away(upstream: Wire) -> None:
    """Read a client's close frame with 1001, masked with a random key (RFC 6455 section 5.3)."""
    word = await upstream.gets_bytes(8)
    assert word[:2] == b"\x88\x82"
    assert bytes(byte ^ over for byte, over in zip(word[6:], word[2:6], strict=False)) == b"\x03\xe9"


async def test_both_ends_of_a_websocket_get_close_frames(edge: Edge) -> None:
    client, upstream = await tunnel(edge)
    await client.reaches(upstream, frame(TEXT, b"hello"))
    drain = Drain(edge, 60.0)
    await client.gets(AWAY)
    await gets_away(upstream)
    await client.sends(close(1001))
    await client.gets_eof()
    client.closes()
    await upstream.gets_eof()
    assert not drain.done
    await upstream.sends(AWAY)
    upstream.closes()
    await drain.ends()


async def test_websockets_are_closed_one_after_the_other(edge: Edge) -> None:
    """Clients reconnect at once, so closing all WebSockets together would cause a flood of connections."""
    loop, ends = asyncio.get_running_loop(), [await tunnel(edge) for _ in range(3)]
    drain = Drain(edge, 1.5)
    moments = []

    async def closes(client: Wire, upstream: Wire) -> None:
        await client.gets(AWAY)
        moments.append(loop.time())
        await client.sends(close(1001))
        await gets_away(upstream)
        await upstream.sends(AWAY)
        await client.gets_eof()
        client.closes()
        await upstream.gets_eof()
        upstream.closes()

    async with asyncio.TaskGroup() as group:
        for client, upstream in ends:
            group.create_task(closes(client, upstream))
    moments.sort()
    assert all(later - earlier > 0.4 for earlier, later in pairwise(moments))
    await drain.ends()


EVENTS = "Content-Type: text/event-stream"
EVENT = b"data: 1\n\n"


@pytest.mark.parametrize("coded", [True, False], ids=["in chunks", "until close"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_event_stream_goes_on_and_ends_as_a_complete_response(edge: Edge, version: str, coded: bool) -> None:
    client, upstream = await edge.forwards(head(f"GET /public/events HTTP/{version}", "Host: edge.test"))
    await upstream.sends(head("HTTP/1.1 200 OK", EVENTS, *["Transfer-Encoding: chunked"] * coded))
    await client.gets_head()
    begun = asyncio.get_running_loop().time()
    drain = Drain(edge, 1.0)
    await edge.settles()
    await upstream.sends(b"%x\r\n%b\r\n" % (len(EVENT), EVENT) if coded else EVENT)
    await client.gets(b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT) if version == "1.1" else EVENT)
    await client.gets_eof()
    assert asyncio.get_running_loop().time() - begun > 0.85
    await upstream.gets_cut()
    client.closes()
    await drain.ends()


async def test_a_begun_frame_is_finished_before_the_close_frame(edge: Edge) -> None:
    client, upstream = await tunnel(edge)
    up, down = frame(BINARY, bytes(range(256)) * 300), HELLO
    await client.reaches(upstream, up[:70_000])
    await upstream.reaches(client, down[:1])
    drain = Drain(edge, 60.0)
    await edge.settles()
    assert client.has() == upstream.has() == b""
    await upstream.reaches(client, down[1:4])
    await upstream.sends(down[4:] + HELLO)
    await client.gets(down[4:] + AWAY)
    await client.sends(up[70_000:] + close(1001))
    await upstream.gets(up[70_000:])
    await gets_away(upstream)
    await client.gets_eof()
    client.closes()
    await upstream.gets_eof()
    await upstream.sends(HELLO + AWAY)
    upstream.closes()
    await drain.ends()


async def test_no_frame_follows_the_close_frame(edge: Edge) -> None:
    """A close frame is the last frame (RFC 6455 section 5.5.1), so later frames of the other end are dropped."""
    client, upstream = await tunnel(edge)
    await upstream.sends(HELLO[:2] + b"h")  # An unfinished frame delays the close frame to the client.
    await client.gets(HELLO[:2] + b"h")
    drain = Drain(edge, 60.0)
    await gets_away(upstream)
    await client.sends(frame(TEXT, b"lost"))
    await upstream.sends(b"ello" + HELLO + b"\x89\x00")
    await client.gets(b"ello" + AWAY)
    await upstream.sends(HELLO + AWAY)
    await client.sends(frame(TEXT, b"lost"), close(1001))
    await client.gets_eof()
    await upstream.gets_eof()
    client.closes()
    upstream.closes()
    await drain.ends()


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_a_websocket_that_is_closing_gets_no_second_close_frame(edge: Edge, first: str) -> None:
    client, upstream = await tunnel(edge)
    one, word, other, answer = (client, close(1000), upstream, b"\x88\x02\x03\xe8")
    if first == "upstream":
        one, word, other, answer = other, answer, one, word
    await one.reaches(other, word)
    drain = Drain(edge, 60.0)
    await edge.settles()
    await other.reaches(one, answer)
    upstream.closes()
    await client.gets_eof()
    client.closes()
    await drain.ends()


@pytest.mark.parametrize("first", ["client", "upstream"])
async def test_a_half_closed_websocket_gets_no_close_frame(edge: Edge, first: str) -> None:
    client, upstream = await tunnel(edge)
    one, other = (client, upstream) if first == "client" else (upstream, client)
    one.sends_eof()
    await other.gets_eof()
    drain = Drain(edge, 60.0)
    await edge.settles()
    await other.reaches(one, HELLO)
    other.closes()
    await one.gets_eof()
    one.closes()
    await drain.ends()


async def test_a_websocket_opened_during_a_drain_gets_close_frames_at_once(edge: Edge) -> None:
    client, upstream = await edge.opens(get("/public/ws", *UPGRADE))
    drain = Drain(edge, 60.0)
    await edge.settles()
    await upstream.sends(SWITCH, HELLO)
    assert (await client.gets_head()).status == 101
    await client.gets(HELLO + AWAY)
    await gets_away(upstream)
    await client.sends(close(1001))
    await upstream.sends(AWAY)
    await client.gets_eof()
    client.closes()
    await upstream.gets_eof()
    upstream.closes()
    await drain.ends()


async def test_a_websocket_over_tls_gets_close_frames(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = map(str, authority.issues("edge.test"))
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": {"cert": cert, "key": key}}
    client = await edge.secure_client(authority.trusted())
    await client.sends(get("/public/ws", *UPGRADE))
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(SWITCH)
    assert (await client.gets_head()).status == 101
    drain = Drain(edge, 60.0)
    await client.gets(AWAY)
    await gets_away(upstream)
    await client.sends(close(1001))
    await client.gets_eof()
    client.closes()
    await upstream.sends(AWAY)
    await upstream.gets_eof()
    upstream.closes()
    await drain.ends()


async def test_a_buffered_response_is_not_cut(edge: Edge) -> None:
    """The exchange is over and the connection idle, but the client has not yet read the whole response."""
    client, upstream = await edge.opens()
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    held.transport.set_write_buffer_limits(high=1 << 20)
    await upstream.sends(ok(bytes(600_000)))
    await edge.until(lambda: held.exchange is None)
    assert held.transport.get_write_buffer_size()
    drain = Drain(edge)
    await edge.until(lambda: held.state > LAST)
    await edge.settles()
    assert len((await client.gets_answer()).body) == 600_000
    await client.gets_eof()
    await drain.ends()
