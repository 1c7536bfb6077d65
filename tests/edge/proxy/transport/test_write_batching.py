"""An idle worker sends each write at once, and a busy one sends a turn's writes together."""

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from edgeproxy.edge.proxy.exchange.overload import REQUESTS_MIN
from edgeproxy.edge.proxy.transport.write_batching import BUSY_SECONDS, CALM_SECONDS, TURNS, WriteBatching
from tests.support.transcript import Edge, get, ok
from tests.support.wire import Wire

LONG, SHORT, BETWEEN = BUSY_SECONDS * 2, CALM_SECONDS / 2, (BUSY_SECONDS + CALM_SECONDS) / 2


@pytest.mark.parametrize(
    ("turns", "is_on"),
    [
        ([LONG] * (TURNS - 1), False),
        ([LONG] * TURNS, True),
        ([SHORT, LONG, SHORT, LONG, SHORT], False),
        ([BETWEEN] * TURNS, False),
        ([*[LONG] * TURNS, *[BETWEEN] * TURNS], True),
        ([*[LONG] * TURNS, *[BETWEEN] * TURNS, 60.0, *[BETWEEN] * TURNS], True),
        ([*[LONG] * TURNS, *[SHORT] * TURNS], False),
        ([*[LONG] * TURNS, SHORT], True),
    ],
)
def test_write_batching_starts_after_long_turns_and_ends_after_short_ones(turns: list[float], is_on: bool) -> None:
    batching = WriteBatching()
    for seconds in turns:
        batching.record_turn(seconds)
    assert batching.is_on is is_on


async def list_unsent(edge: Edge, client: Wire, upstream: Wire) -> list[int]:
    """The bytes that wait in the edge right after it has written to the upstream, and to the client."""
    (held,) = edge.runtime.connections.clients
    (server,) = edge.endpoint().idle
    unsent = []

    def look(write: Callable[[bytes], None], transport: asyncio.Transport, data: bytes) -> None:
        write(data)
        unsent.append(transport.get_write_buffer_size())

    with pytest.MonkeyPatch.context() as patch:
        for side in (held, server):
            patch.setattr(side, "write", partial(look, side.write, side.transport))
        await client.sends(get())
        await upstream.serves(client, ok(b"some"))
    return unsent


@pytest.mark.parametrize("begins_busy", [False, True])
async def test_connections_batch_while_the_loop_of_their_worker_is_busy(edge: Edge, begins_busy: bool) -> None:
    await edge.starts()
    batching, loop = edge.runtime.write_batching, asyncio.get_running_loop()
    is_busy = begins_busy

    def work() -> None:
        time.sleep(LONG)
        if is_busy:
            loop.call_soon(work)

    if begins_busy:
        work()
        await edge.until(lambda: batching.is_on, "the worker is busy")
    client, upstream = await edge.opens(get())
    await upstream.tells(client, ok(b"first"))
    endpoint = edge.endpoint()
    endpoint.outstanding += REQUESTS_MIN  # The loop is sampled more often.
    assert all(await list_unsent(edge, client, upstream)) is begins_busy
    is_busy = not is_busy
    work()
    await edge.until(lambda: batching.is_on is is_busy, "the worker is busy, or has time")
    assert all(await list_unsent(edge, client, upstream)) is is_busy
    is_busy = False
    endpoint.outstanding -= REQUESTS_MIN
