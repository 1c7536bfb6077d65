"""Clients that send or take a body byte by byte hold nothing for long; who is merely slow is served."""

import asyncio

import pytest

from edgeproxy.edge.proxy.connections import client_transport
from edgeproxy.edge.proxy.connections.client import Client
from tests.edge.proxy.asking import is_problem
from tests.support.transcript import Edge, get, head, ok
from tests.support.wire import PATIENCE, narrow

UPLOAD = head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 100000")
CHUNKED = head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked")


@pytest.mark.parametrize("request_", [UPLOAD, CHUNKED], ids=["length", "chunked"])
async def test_a_body_that_trickles_is_408(edge: Edge, request_: bytes) -> None:
    edge.config["limits"] = {"body_idle": "100ms", "body_rate": "10KiB"}
    client, upstream = await edge.opens(request_)
    while not client.has():
        client.tries(b"x" if request_ is UPLOAD else b"1\r\nx\r\n")
        await asyncio.sleep(0.005)
    is_problem(await client.gets_answer(), 408)
    await upstream.gets_cut()
    await client.gets_cut()


async def test_a_body_without_a_least_rate_may_trickle(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "1s", "body_rate": "none"}
    client, upstream = await edge.opens(CHUNKED)
    (held,) = edge.runtime.connections.clients
    assert isinstance(held, Client)
    for _ in range(3):
        before = held.deadline
        await client.reaches(upstream, b"1\r\nx\r\n")
        assert held.deadline > before
    await client.reaches(upstream, b"0\r\n\r\n")
    assert (await upstream.tells(client, ok())).status == 200


async def test_slow_reader_of_an_answer_is_disconnected(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "200ms", "body_rate": "1MiB"}
    client = await edge.client(receives=4096)
    await edge.until(lambda: edge.runtime.connections.clients)
    (held,) = edge.runtime.connections.clients
    narrow(held.transport)
    upstream = await edge.brings(client, get())
    await upstream.sends(head("HTTP/1.1 200 OK", f"Content-Length: {64 << 20}"))
    async with asyncio.timeout(PATIENCE):
        while not upstream.at_end():
            try:
                await upstream.sends_while_taken(b"x" * 0x8000, 1 << 20)
            except ConnectionError:
                break
            if edge.runtime.connections.clients:
                await client.gets_bytes(1)
            await asyncio.sleep(0.005)
    await client.gets_cut()


async def test_idle_reader_does_not_trigger_the_upstream_idle_timeout(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"]["idle"] = "100ms"
    client = await edge.client(receives=4096)
    upstream = await edge.brings(client, get())
    (held,) = edge.runtime.connections.clients
    assert isinstance(held, Client)
    answer = ok(b"x" * (16 << 20))

    async def rests() -> bytes:
        await edge.until(lambda: held.write_paused)
        await asyncio.sleep(0.3)
        return (await client.gets_answer()).body

    _, body = await asyncio.gather(upstream.sends(answer), rests())
    assert answer.endswith(body)


async def test_client_still_uploading_after_an_answer_can_read_it(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_transport, "LINGER_SECONDS", 0.3)
    client, upstream = await edge.opens(UPLOAD)
    await upstream.sends(head("HTTP/1.1 413 Content Too Large", "Content-Length: 4") + b"long")
    for _ in range(100):
        await client.sends(b"x" * 500)
        await asyncio.sleep(0.01)
    assert (await client.gets_answer()).body == b"long"
    await client.gets_eof()


async def test_endless_upload_after_an_answer_is_cut(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_transport, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr(client_transport, "LINGER_SECONDS_MAX", 0.2)
    client, upstream = await edge.opens(UPLOAD)
    await upstream.sends(head("HTTP/1.1 413 Content Too Large", "Content-Length: 4") + b"long")
    async with asyncio.timeout(PATIENCE):
        while edge.runtime.connections.clients:
            client.tries(b"x")
            await asyncio.sleep(0.005)
    assert b"413" in await client.gets_cut()
