"""Nothing of an exchange is left when it is over, and nothing waits for the collector of garbage to be freed.

A worker's collector hardly ever examines objects that outlive its first run, so a cycle stays for good: bodies on disk
once left 12 KiB for each request.

In a compiled module inner functions hold each other (docs/start/compiled.md#safety): such a leak shows here.
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from loadtest.testbed.frames import TEXT, frame
from tests.support.http2_wire import compute_accept, http2
from tests.support.transcript import Edge, chunks, get, head, ok, post

ROUNDS = 15
LARGE = 400_000
"""Bytes of a body that goes to disk."""
NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
USAGE = {"format": "openai"}
FALLBACK = {"upstream": "other", "statuses": [404]}


async def answered(edge: Edge) -> None:
    await edge.passes(get("/public/plain"), ok())


async def posted(edge: Edge) -> None:
    await edge.passes(post(b"x" * 1000), ok(b"y" * 70_000), to="POST")


async def in_chunks(edge: Edge) -> None:
    await edge.passes(get("/public/chunks"), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"a", b"b"))


async def refused(edge: Edge) -> None:
    client = await edge.client()
    assert (await client.asks(get("/v1/none"))).status == 401
    client.closes()


async def malformed(edge: Edge) -> None:
    client = await edge.client()
    assert (await client.asks(b"GET /public/ HTTP/1.1\r\n\r\n")).status == 400
    client.closes()


async def cut_by_the_upstream(edge: Edge) -> None:
    client, upstream = await edge.forwards(post(b"x"))
    upstream.closes()
    assert (await client.gets_answer()).status == 502
    client.closes()


async def cut_by_the_client(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    client.aborts()
    await upstream.gets_cut()


async def streams(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok())
    client = await http2(edge)
    for path in ("/public/a", "/public/b"):
        assert (await client.asks(path)).status == 200
    client.wire.closes()


def sized(path: str, size: int) -> bytes:
    return head(f"POST {path} HTTP/1.1", "Host: edge.test", f"Content-Length: {size}")


async def held_on_disk(edge: Edge) -> None:
    await edge.passes(sized("/whole/", LARGE) + b"x" * LARGE, ok(), to="POST")


async def cut_on_its_way_to_disk(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(sized("/whole/", 2 * LARGE), b"x" * LARGE)
    await edge.until(lambda: edge.runtime.body_space.used_bytes, "a body on disk")
    client.aborts()
    await edge.until(lambda: not edge.runtime.body_space.used_bytes, "no body on disk")


async def stream_reset_on_its_way_to_disk(edge: Edge) -> None:
    client = await http2(edge)
    fields = ("content-length", str(2 * LARGE))
    number = await client.begins_request("POST", "/whole/", fields, ended=False)
    await client.sends_data(number, b"x" * LARGE)
    await edge.until(lambda: edge.runtime.body_space.used_bytes, "a body on disk")
    client.protocol.reset_stream(number)
    await client.flushes()
    await edge.until(lambda: not edge.runtime.body_space.used_bytes, "no body on disk")
    client.wire.closes()


async def counted(edge: Edge) -> None:
    body = b'{"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}'
    await edge.passes(post(b"{}", "/counted/"), ok(body, "Content-Type: application/json"), to="POST")


async def counted_after_its_client_has_left(edge: Edge) -> None:
    event = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
    client, upstream = await edge.forwards(post(b'{"stream": true}', "/counted/"))
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Connection: close"), event)
    await client.gets_head()
    client.aborts()
    await edge.until(lambda: edge.runtime.connections.readers, "a reader for usage")
    await upstream.sends(event, b"data: [DONE]\n\n")
    upstream.closes()
    await edge.until(lambda: not edge.runtime.connections.readers, "the reader's end")


async def compressed(edge: Edge) -> None:
    await edge.passes(get("/compressed/", "Accept-Encoding: gzip"), ok(b"a" * 5000, "Content-Type: text/plain"))


async def switched(edge: Edge) -> None:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {NONCE}")
    client, upstream = await edge.forwards(get("/public/", *upgrade))
    accept = compute_accept(NONCE).decode()
    switching = head("HTTP/1.1 101 Switching", *upgrade[:2], f"Sec-WebSocket-Accept: {accept}")
    await upstream.sends(switching)
    assert (await client.gets_head()).status == 101
    await client.sends(sent := frame(TEXT, b"a"))
    await upstream.gets(sent)
    client.closes()
    await upstream.gets_eof()


async def answered_by_another(edge: Edge) -> None:
    edge.upstream.answers(lambda request: head("HTTP/1.1 404 Not Found", "Content-Length: 0"))
    edge.upstreams[1].answers(lambda request: ok())
    client = await edge.client()
    assert (await client.asks(post(b"x", "/fallen/"))).status == 200
    client.closes()


def count_objects() -> Counter[str]:
    """Objects of the edge's own classes."""
    names = (f"{type(object_).__module__}.{type(object_).__qualname__}" for object_ in gc.get_objects())
    return Counter(name for name in names if name.startswith("edgeproxy.edge."))


@pytest.mark.parametrize(
    "exchange",
    [
        *(answered, posted, in_chunks, refused, malformed, cut_by_the_upstream, cut_by_the_client, streams),
        *(held_on_disk, cut_on_its_way_to_disk, stream_reset_on_its_way_to_disk),
        *(counted, counted_after_its_client_has_left, compressed, switched, answered_by_another),
    ],
)
async def test_exchanges_leave_no_objects_behind(edge: Edge, exchange: Callable[[Edge], Awaitable[None]]) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["upstreams"]["whole"] = {"endpoints": [edge.upstream.url], "buffer": "4MiB"}
    edge.config["meters"] = {"all": {"count": "total_tokens"}}
    edge.adds_endpoint("other")
    edge.config["routes"] += [
        {"name": "whole", "path": "/whole/*", "upstream": "whole", "auth": "none"},
        {"name": "counted", "path": "/counted/*", "upstream": "api", "auth": "none", "response_usage": USAGE},
        {"name": "compressed", "path": "/compressed/*", "upstream": "api", "auth": "none", "compress": "on"},
        {"name": "fallen", "path": "/fallen/*", "upstream": "api", "auth": "none", "fallback": FALLBACK},
    ]

    async def repeat() -> None:
        for _ in range(ROUNDS):
            await exchange(edge)
        edge.clients.clear()
        await edge.until(lambda: not edge.runtime.connections.clients, "clients that leave")

    await repeat()
    gc.collect()
    gc.disable()
    try:
        before = count_objects()
        await repeat()
        left: dict[str, int] = {}

        def are_gone() -> bool:
            left.clear()
            left.update((name, n) for name, n in (count_objects() - before).items() if n >= ROUNDS // 3)
            return not left

        with suppress(AssertionError):  # An upstream's end of a tunnel may be closed some turns after the client's.
            await edge.until(are_gone)
    finally:
        gc.enable()
    assert left == {}
