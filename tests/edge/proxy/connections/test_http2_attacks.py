"""Attacks on an edge over HTTP/2, and the end of each."""

import asyncio
import resource
from time import monotonic

import pytest
from h2.errors import ErrorCodes
from h2.events import StreamReset

from edgeproxy.edge.http2 import connection
from edgeproxy.edge.proxy.connections.http2_client import HELD_BYTES_MAX, STREAM_SHARE_BYTES, UNSENT_BYTES_MAX
from edgeproxy.edge.proxy.transport import deadlines
from tests.edge.http2.peer import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GET,
    HEADERS,
    PING,
    PREFACE,
    block,
    frame,
    post,
    reset,
    settings,
    update,
)
from tests.edge.http2.peer import get as get_stream
from tests.support.http2_wire import Http2Wire, http2
from tests.support.transcript import Edge, get, head
from tests.support.wire import narrow

GOAWAY = 7
CALM = ErrorCodes.ENHANCE_YOUR_CALM


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    return edge


async def attack(edge: Edge, *parts: bytes) -> int:
    """Send the preface and these frames. Return the code of the GOAWAY that ends the connection."""
    client = await edge.client()
    try:
        await client.sends(PREFACE, settings(), *parts)
    except ConnectionError:
        pass  # The edge may close the connection before all bytes are written.
    data = await client.gets_rest() if client.open else b""
    client.closes()
    codes = []
    while data:
        size, kind = int.from_bytes(data[:3], "big"), data[3]
        if kind == GOAWAY:
            codes.append(int.from_bytes(data[13:17], "big"))
        data = data[9 + size :]
    assert len(codes) == 1
    return codes[0]


def asked_for_nothing(count: int) -> bytes:
    """Send this number of requests that are reset, each after two that get a 404."""
    numbers = range(1, 6 * count, 6)
    return b"".join(
        get_stream(number) + get_stream(number + 2) + get_stream(number + 4) + reset(number + 4) for number in numbers
    )


def made_to_reset(count: int) -> bytes:
    """Open streams that the edge has to reset (CVE-2025-8671)."""
    return b"".join(post(number) + update(number, 0) for number in range(1, 2 * count, 2))


OPEN = frame(HEADERS, END_STREAM, 1, block(GET))
FLOODS = {
    "MadeYouReset, CVE-2025-8671": made_to_reset(400),
    "resets between answers": asked_for_nothing(200),
    "a block that does not end, CVE-2024-27316": OPEN + frame(CONTINUATION, 0, 1) * 40,
    "settings, CVE-2019-9515": settings((4, 1000)) * 2000,
    "pings, CVE-2019-9512": frame(PING, 0, 0, bytes(8)) * 2000,
    "empty data, CVE-2019-9518": post() + frame(0, 0, 1) * 2000,
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
async def test_http2_flood_ends_only_its_own_connection(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, flood: str
) -> None:
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 0.5)  # Each sweep restores a part of the budget.
    edge.config["routes"] = [{"name": "no", "path": "/nothing/*", "upstream": "api", "auth": "none"}]
    await edge.starts()
    begun = resource.getrusage(resource.RUSAGE_SELF)
    assert await attack(edge, FLOODS[flood]) == CALM
    ended = resource.getrusage(resource.RUSAGE_SELF)
    assert ended.ru_utime - begun.ru_utime < 1.0
    assert edge.count("edge_http2_goaways_total", "ENHANCE_YOUR_CALM") == 1
    assert (await (await edge.client()).asks(get("/"))).status == 404


async def test_rapid_reset_within_one_slice_reaches_no_upstream(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage checks that every slot is released."""
    monkeypatch.setattr(connection, "SLICE_BYTES", 1 << 20)
    await edge.starts()
    data = b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, number, block([*GET[:1], (b":path", b"/public/"), *GET[2:]]))
        + reset(number)
        for number in range(1, 800, 2)
    )
    assert await attack(edge, data) == CALM
    await edge.until(lambda: not edge.runtime.connections.upstreams, "no connection is left for them")
    for _ in range(101):
        if edge.upstream.is_asked():
            (await edge.upstream.accepts()).closes()


async def test_rapid_reset_reaches_the_upstream_with_no_more_than_patience_allows(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request is reset after the upstream has it, so every passed request is counted."""
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 0.5)
    client = await http2(edge)
    begun, reached = monotonic(), 0
    (one,) = edge.runtime.connections.http2_clients
    while not one.has_ended:
        number = await client.begins_request("GET", "/public/")
        await edge.settles()
        if one.has_ended:
            break
        upstream = await edge.upstream.takes()
        reached += 1
        client.protocol.reset_stream(number)
        await client.flushes()
        await upstream.gets_cut()
        upstream.closes()
    assert (await client.goaway()).error_code == CALM
    sweeps = (monotonic() - begun) / 0.5 + 2
    assert 100 <= reached <= 101 + 5 * sweeps


async def test_client_that_reads_no_heads_is_not_read_further(edge: Edge) -> None:
    """No flow-control window covers heads. The edge may buffer the answers of one read, and then stops reading."""
    wire = await edge.client(receives=4096)
    head_only = block([(b":method", b"HEAD"), *GET[1:]])
    await wire.sends(PREFACE, settings())
    await edge.until(lambda: edge.runtime.connections.http2_clients)
    (one,) = edge.runtime.connections.http2_clients
    narrow(one.transport)
    asked = 0
    while one.reading:
        data = b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, number, head_only)
            for number in range(2 * asked + 1, 2 * asked + 101, 2)
        )
        asked += 50
        await wire.sends(data)
        await edge.settles()
        assert asked < 50_000, "the connection is read without end"
    held = one.transport.get_write_buffer_size()
    assert held > UNSENT_BYTES_MAX
    await wire.sends_within(frame(HEADERS, END_HEADERS | END_STREAM, 2 * asked + 1, head_only), 0.05)
    await edge.settles()
    assert one.transport.get_write_buffer_size() == held, "and nothing more is answered"
    answered = 0
    while answered <= asked:
        size = int.from_bytes((prefix := await wire.gets_bytes(9))[:3], "big")
        await wire.gets_bytes(size)
        answered += prefix[3] == HEADERS
    await edge.until(lambda: one.reading)
    wire.closes()


async def test_trickling_http2_upload_answers_408_on_its_stream(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "100ms", "body_rate": "10KiB"}
    client = await http2(edge)
    number = await client.begins_request("POST", "/public/", ended=False)
    upstream = await edge.upstream.accepts()
    while not client.wire.has():
        client.protocol.send_data(number, b"x")
        await client.flushes()
        await asyncio.sleep(0.005)
    assert (await client.answer_of(number)).status == 408
    await upstream.gets_cut()
    assert (await client.asks("/other")).status == 404


async def test_stream_is_reset_if_its_window_opens_byte_by_byte(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "200ms", "body_rate": "1MiB"}
    client = await http2(edge)
    client.window = False
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.takes()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 1000000"), bytes(200_000))
    while True:
        await client.reads()
        if any(isinstance(event, StreamReset) for event in client.events[number]):
            break
        if client.protocol.remote_flow_control_window(number) == 0:
            client.protocol.increment_flow_control_window(1)
            client.protocol.increment_flow_control_window(1, number)
            await client.flushes()
            await asyncio.sleep(0.005)
    assert await client.reset_of(number) == ErrorCodes.CANCEL
    await upstream.gets_cut()
    client.protocol.increment_flow_control_window(10_000)
    assert (await client.asks("/other")).status == 404


async def test_unread_answers_leave_other_streams_their_share(edge: Edge) -> None:
    client = Http2Wire(await edge.client())
    edge.clients[-1] = client  # type: ignore[call-overload]
    client.window = False
    await client.begins()
    await client.wire.sends(settings((4, 0)))
    upstreams = []
    for _ in range(20):
        number = await client.begins_request("GET", "/public/")
        upstream = await edge.upstream.accepts()
        await upstream.gets_request()
        await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 1048576"))
        await upstream.sends_within(bytes(1 << 20), 0.05)
        upstreams.append(upstream)
        assert (await client.head_of(number)).status == 200
    (one,) = edge.runtime.connections.http2_clients
    assert HELD_BYTES_MAX < one.http2.waiting_bytes <= HELD_BYTES_MAX + 20 * (STREAM_SHARE_BYTES + (256 << 10))
    last = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 100000"), bytes(100_000))
    client.protocol.increment_flow_control_window(1 << 20)
    client.protocol.increment_flow_control_window(1 << 20, last)
    await client.flushes()
    assert len((await client.answer_of(last)).body) == 100_000
    for upstream in upstreams:
        upstream.closes()
    client.closes()


async def test_stream_with_an_unread_answer_is_reset(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "200ms"}
    client = Http2Wire(await edge.client())
    edge.clients[-1] = client  # type: ignore[call-overload]
    client.window = False
    await client.begins()
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 1000000"), bytes(200_000))
    assert await client.reset_of(number) == ErrorCodes.CANCEL
    await upstream.gets_cut()
    assert (await client.asks("/other", method="HEAD")).status == 404


async def test_connection_silent_after_its_preface_is_closed(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "200ms"}
    client = await edge.client()
    await client.sends(PREFACE)
    await client.gets_rest()
    client.closes()


async def test_a_field_block_has_the_time_of_a_head_and_its_bytes_count_as_held(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "1s"}
    client = await http2(edge)
    number = await client.begins_request("GET", "/public/")
    upstream = await edge.upstream.takes()
    part = block(GET) + b"\x00\x01a\x7f" + b"\xff" * 2
    await client.wire.sends(frame(HEADERS, END_STREAM, number + 2, part))
    await edge.until(lambda: edge.runtime.held.held_bytes >= len(part), "the beginning of the block is held")
    goaway = await client.goaway()
    assert goaway.error_code == CALM
    assert goaway.additional_data == b"a field block did not arrive in time"
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.held.held_bytes, "nothing is held any more")
