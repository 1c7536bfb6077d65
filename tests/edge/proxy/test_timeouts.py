"""Upstream timeouts by service, by route and in total; and answers with permitted silence."""

import asyncio

import pytest

from edgeproxy.edge.proxy.connections.client import Client
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import narrow

EVENTS = head("HTTP/1.1 200 OK", "Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked")
PIECES = head("HTTP/1.1 200 OK", "Content-Type: text/plain", "Transfer-Encoding: chunked")


def client_of(edge: Edge) -> Client:
    """The edge's side of its only client."""
    (client,) = edge.runtime.connections.clients
    assert isinstance(client, Client)
    return client


def on_route(edge: Edge, **timeouts: str) -> None:
    """Time-outs of the route `public`."""
    edge.config["routes"][1]["timeouts"] = timeouts


async def test_a_route_has_time_outs_of_its_own(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "50ms"}
    on_route(edge, response_head="10min")
    patient, upstream = await edge.forwards()
    hasty, _ = await edge.forwards(get("/maybe/x"))
    is_fault(await hasty.gets_answer(), 504, "http_response_timeout")
    assert (await upstream.tells(patient, ok())).status == 200


async def test_a_routes_idle_time_cuts_an_answer_that_stops(edge: Edge) -> None:
    on_route(edge, idle="50ms")
    client, upstream = await edge.forwards()
    await upstream.sends(PIECES, b"5\r\nhello\r\n")
    await client.gets_head()
    assert not (await client.gets_reset()).endswith(b"0\r\n\r\n")


async def test_a_stream_of_events_may_be_silent(edge: Edge) -> None:
    on_route(edge, idle="50ms")
    client, upstream = await edge.forwards()
    await upstream.sends(EVENTS, b"5\r\nhello\r\n")
    answer = await client.gets_head()
    assert client_of(edge).deadline == float("inf")
    await asyncio.sleep(0.2)
    await upstream.sends(chunks(b"again"))
    await client.gets_chunks(answer)
    assert answer.body == b"helloagain"


async def test_a_stream_that_began_before_the_body_had_ended_may_be_silent_too(edge: Edge) -> None:
    client, upstream = await edge.opens(post(b"0123456789")[:-5])
    await upstream.sends(EVENTS)
    answer = await client.gets_head()
    await client.sends(b"56789")
    assert await upstream.gets_bytes(10) == b"0123456789"
    assert client_of(edge).deadline == float("inf")
    await upstream.sends(chunks(b"hello"))
    await client.gets_chunks(answer)
    client.closes()


async def test_client_that_reads_no_events_is_disconnected(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "50ms"}
    client = await edge.client(receives=4096)
    await edge.until(lambda: edge.runtime.connections.clients)
    narrow(client_of(edge).transport)
    upstream = await edge.brings(client, get())
    await upstream.sends(EVENTS)
    await client.gets_head()
    await upstream.sends_while_taken(b"8000\r\n" + b"x" * 0x8000 + b"\r\n", 64 << 20)
    await upstream.gets_cut()
    await client.gets_reset()


@pytest.mark.parametrize("where", ["service", "route"])
async def test_a_request_that_takes_too_long_in_all_is_over(edge: Edge, where: str) -> None:
    if where == "route":
        on_route(edge, total="150ms")
    else:
        edge.config["upstreams"]["api"]["timeouts"] = {"total": "150ms"}
    client, upstream = await edge.forwards()
    is_fault(await client.gets_answer(), 504, "http_response_timeout")
    await upstream.gets_cut()
    upstream = await edge.brings(client, get())
    await upstream.sends(PIECES)
    await client.gets_head()
    while not upstream.at_end():
        upstream.tries(b"5\r\nhello\r\n")
        await asyncio.sleep(0.005)
    assert not (await client.gets_reset()).endswith(b"0\r\n\r\n")


async def test_incomplete_body_answers_408_at_the_total_timeout(edge: Edge) -> None:
    on_route(edge, total="150ms")
    client = await edge.client()
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 1000000"))
    upstream = await edge.upstream.accepts()
    while not client.has():
        await client.sends(b"x")
        await asyncio.sleep(0.005)
    assert (await client.gets_answer()).status == 408
    await upstream.gets_cut()
    await client.gets_eof()


async def test_a_request_in_time_is_none_of_that(edge: Edge) -> None:
    on_route(edge, total="10min")
    received, answer = await edge.passes(post(b"abc"), ok())
    assert (received.body, answer.status) == (b"abc", 200)
    await edge.until(lambda: not edge.runtime.connections.request_deadlines)


async def test_a_client_that_leaves_is_not_remembered_for_its_request_s_time(edge: Edge) -> None:
    on_route(edge, total="10min")
    client, upstream = await edge.forwards()
    assert len(edge.runtime.connections.request_deadlines) == 1
    client.aborts()
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.connections.request_deadlines)
