"""While turns are long, an HTTP/2 client has few requests whose answers have not begun. The socket is not read then."""

from collections.abc import Callable

import pytest

from edgeproxy.edge.proxy.connections.http2_client import AHEAD_MAX, Http2Client
from edgeproxy.edge.proxy.transport.turns import CROWDED_SECONDS, FULL_TURN_SECONDS, Turns
from tests.support.http2_wire import Http2Wire, http2
from tests.support.transcript import Edge, ok

pytestmark = pytest.mark.patches_methods

SWEEP = Http2Client.sweep


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Say whether turns are long from now on. They are at first. No client is swept by itself."""

    def say(answer: bool) -> None:
        monkeypatch.setattr(Turns, "is_crowded", lambda _: answer)

    say(True)
    monkeypatch.setattr(Http2Client, "sweep", lambda _: None)
    return say


async def connects(edge: Edge) -> tuple[Http2Wire, Http2Client]:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    wire = await http2(edge)
    (client,) = edge.runtime.connections.http2_clients
    return wire, client


async def leaves(edge: Edge, wire: Http2Wire) -> None:
    wire.wire.aborts()
    await edge.until(lambda: not edge.runtime.connections.upstreams, "all connections to upstreams are closed")


async def test_client_with_many_requests_ahead_is_read_when_they_are_answered(edge, crowded):
    wire, client = await connects(edge)
    numbers = [await wire.begins_request("GET", "/public/") for _ in range(AHEAD_MAX + 1)]
    await edge.until(lambda: not client.reading, "the client is not read")
    numbers.append(await wire.begins_request("GET", "/public/"))
    upstreams = [await edge.upstream.takes() for _ in range(AHEAD_MAX + 1)]
    for upstream in upstreams:
        await upstream.sends(ok(b"first", "Connection: close"))
    await (await edge.upstream.takes()).sends(ok(b"last"))
    bodies = [(await wire.answer_of(number)).body for number in numbers]
    assert bodies == [b"first"] * (AHEAD_MAX + 1) + [b"last"]


async def test_client_that_is_not_read_may_leave(edge, crowded):
    wire, client = await connects(edge)
    for _ in range(AHEAD_MAX + 1):
        await wire.begins_request("GET", "/public/")
    upstreams = [await edge.upstream.takes() for _ in range(AHEAD_MAX + 1)]
    await edge.until(lambda: not client.reading, "the client is not read")
    wire.wire.aborts()
    await upstreams[0].sends(ok(b"", "Connection: close"))  # The edge notices the reset when it writes.
    await edge.until(lambda: not edge.runtime.connections.http2_clients, "the connection is lost")
    await edge.until(lambda: not edge.runtime.connections.upstreams, "all connections to upstreams are closed")


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfi", ok(b"x" * 100_000, "Connection: close")]
)
async def test_answers_that_have_begun_do_not_count(edge, crowded, head):
    wire, client = await connects(edge)
    wire.window = False
    for _ in range(AHEAD_MAX):
        await wire.begins_request("GET", "/public/")
        await (await edge.upstream.takes()).sends(head)
    await wire.begins_request("GET", "/public/")
    await edge.upstream.takes()
    assert client.reading
    await leaves(edge, wire)


async def test_unfinished_uploads_do_not_count(edge, crowded):
    wire, client = await connects(edge)
    numbers = [await wire.begins_request("POST", "/public/", ended=False) for _ in range(AHEAD_MAX + 1)]
    upstreams = [await edge.upstream.accepts() for _ in numbers]
    messages = [await upstream.gets_head() for upstream in upstreams]
    assert client.reading
    for number in numbers:
        await wire.sends_data(number, b"whole", ended=True)
    await edge.until(lambda: not client.reading, "the client is not read once the requests are whole")
    for upstream, message in zip(upstreams, messages, strict=True):
        await upstream.gets_chunks(message)
        await upstream.sends(ok())
    for number in numbers:
        assert (await wire.answer_of(number)).status == 200
    assert client.reading


async def test_requests_of_slow_services_do_not_count_for_long(edge, crowded):
    wire, client = await connects(edge)
    for _ in range(AHEAD_MAX + 1):
        await wire.begins_request("GET", "/public/")
    await edge.until(lambda: not client.reading, "the client is not read")
    SWEEP(client)
    assert client.reading
    numbers = [await wire.begins_request("GET", "/public/") for _ in range(2)]
    for _ in range(AHEAD_MAX + 3):
        await (await edge.upstream.takes()).sends(ok())
    for number in numbers:
        assert (await wire.answer_of(number)).status == 200


async def test_all_streams_are_served_at_once_while_turns_are_short(edge, crowded):
    crowded(False)
    wire, client = await connects(edge)
    for _ in range(90):
        await wire.begins_request("GET", "/public/")
    for _ in range(90):
        await edge.upstream.takes()
    assert client.reading
    await leaves(edge, wire)


def test_loop_is_crowded_for_a_while_after_a_long_turn():
    now = 100.0
    turns = Turns(lambda: now)
    turns.record(FULL_TURN_SECONDS)
    assert not turns.is_crowded()
    turns.record(FULL_TURN_SECONDS * 1.01)
    assert turns.is_crowded()
    now += CROWDED_SECONDS
    assert not turns.is_crowded()
