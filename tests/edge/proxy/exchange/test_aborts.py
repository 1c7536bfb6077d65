"""Clients that disconnect: the edge stops all work for them. At the end the stage counts outstanding requests."""

import socket

from edgeproxy.edge.proxy.connections.client_states import LAST, RESETTING
from tests.support.transcript import Edge, get, head, ok, post
from tests.support.wire import RESET

MIB = 1 << 20


async def test_client_reset_before_the_accept_is_ignored(edge: Edge) -> None:
    """Its address is not known any more, so nothing could be said of whose request it was. Found by tests/fuzz."""
    await edge.starts()
    gone = socket.create_connection(edge.address)
    gone.sendall(post(b"hello"))
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    gone.close()
    client = await edge.client()
    await client.sends(get("/public/after"))
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first.startswith("GET /public/after ")
    await upstream.tells(client, ok())
    await edge.settles()
    assert not edge.upstream.is_asked()


async def test_reset_of_a_stalled_client_frees_the_upstream(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", f"Content-Length: {64 * MIB}"))
    await upstream.sends_while_taken(bytes(1 << 16), 64 * MIB)
    (held,) = edge.runtime.connections.clients
    assert held.write_paused
    client.aborts()
    await upstream.gets_cut()


async def test_reset_with_a_request_is_not_a_half_close(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(get("/public/gone"))
    client.aborts()
    await edge.until(lambda: not edge.runtime.connections.clients and not edge.runtime.tasks._running)
    assert edge.endpoint().outstanding == 0
    edge.upstream.is_asked()  # It may or may not have been connected to by then.


async def test_client_reset_during_a_connect_leaves_the_connection_to_others(edge: Edge) -> None:
    client, upstream = await edge.serves()
    upstream.closes()
    await edge.until(lambda: not edge.endpoint().idle)
    (held,) = edge.runtime.connections.clients
    connect, connecting = edge.runtime.connector.connect, []
    edge.runtime.connector.connect = connecting.append
    await client.sends(get("/public/gone"))
    await edge.until(lambda: connecting)
    edge.runtime.connector.connect = connect
    connect(connecting[0])
    held.transport.abort()
    await edge.until(lambda: not edge.runtime.connections.clients)
    assert edge.endpoint().outstanding == 0
    other = await edge.upstream.accepts()
    await edge.until(lambda: edge.endpoint().idle)
    another = await edge.client()
    await another.sends(get("/public/next"))
    assert (await other.gets_request()).first == "GET /public/next HTTP/1.1"
    assert (await other.tells(another, ok())).status == 200


async def test_client_reset_drops_its_pipelined_requests(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(*(get(f"/public/{n}") for n in range(50)))
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).first == "GET /public/0 HTTP/1.1"
    client.aborts()
    assert await upstream.gets_cut() == b""


async def test_broken_answer_keeps_earlier_answers_whole(edge: Edge) -> None:
    """A reset discards data that has not arrived, so the edge waits for its arrival. Found by tests/fuzz."""
    client = await edge.client(receives=4096)
    upstream = await edge.brings(client, get("/public/1"), get("/public/2"))
    await upstream.sends(ok(b"x" * 500_000))
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n")
    upstream.aborts()
    await edge.until(lambda: all(client.state > LAST for client in edge.runtime.connections.clients))
    assert len((await client.gets_answer()).body) == 500_000
    assert (await client.gets_reset()).endswith(b"5\r\nhello\r\n")


async def test_unread_broken_answer_is_reset_after_body_idle(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "1s"}
    client = await edge.client(receives=4096)
    upstream = await edge.brings(client, get())
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 3000000"), b"x" * 1_000_000)
    upstream.aborts()
    await edge.until(lambda: all(client.state == RESETTING for client in edge.runtime.connections.clients))
    assert edge.runtime.connections.clients
    await edge.until(lambda: not edge.runtime.connections.clients)
    await client.gets_reset()
