"""Nothing of an exchange is left when it is over, and nothing waits for the collector of garbage to be freed.

In a compiled module inner functions hold each other (docs/start/compiled.md#safety): such a leak shows here.
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.support.http2_wire import http2
from tests.support.transcript import Edge, chunks, get, head, ok, post

ROUNDS = 30


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


def count_objects() -> Counter[str]:
    """Objects of the edge's own classes."""
    names = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    return Counter(name for name in names if name.startswith("edgeproxy.edge."))


@pytest.mark.parametrize(
    "exchange", [answered, posted, in_chunks, refused, malformed, cut_by_the_upstream, cut_by_the_client, streams]
)
async def test_nothing_is_left_of_exchanges(edge: Edge, exchange: Callable[[Edge], Awaitable[None]]) -> None:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}

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
        left = count_objects() - before
    finally:
        gc.enable()
    assert not {name: n for name, n in left.items() if n >= ROUNDS // 3}
