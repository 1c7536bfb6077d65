"""Services that get requests whole: bodies are taken in first, on disk beyond what memory has for them."""

import asyncio
import hashlib
import os
import tempfile
from typing import Any

import pytest

from edgeproxy.edge.proxy.exchange import buffered_body
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN, HEALTHY
from tests.edge.proxy.asking import is_problem
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import UNLIMITED, Edge, get, head, ok
from tests.support.wire import Message

MIB = 1 << 20
BODY = os.urandom(3 * MIB)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """One whose service gets bodies of up to 4 MiB whole."""
    edge.config["upstreams"]["api"]["buffer"] = "4MiB"
    return edge


def sized(length: int, *fields: str, method: str = "POST") -> bytes:
    return head(f"{method} /public/ HTTP/1.1", "Host: h", f"Content-Length: {length}", *fields)


def files(edge: Edge) -> int:
    """Return the number of open unnamed files in the edge's directory."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{each}")
        except FileNotFoundError:
            continue  # That of the listing itself.
        count += link.startswith(f"{edge.runtime.folder}/") and link.endswith("(deleted)")
    return count


def is_alike(request: Message, body: bytes) -> None:
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("size", [1000, 200_000, len(BODY)], ids=["small", "in memory", "on disk"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_buffered_request_reaches_the_upstream_after_its_whole_body(edge: Edge, size: int, chunked: bool) -> None:
    client = await edge.client()
    body = BODY[:size]
    half = size // 2
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    await client.sends(head("POST /public/ HTTP/1.1", "Host: h", framing))
    piece = (lambda data: b"%x\r\n%b\r\n" % (len(data), data)) if chunked else bytes
    await client.sends(piece(body[:half]))
    await edge.settles()
    assert not edge.runtime.connections.upstreams
    assert edge.endpoint().outstanding == 0
    await client.sends(piece(body[half:]), b"0\r\n\r\n" if chunked else b"")
    upstream = await edge.upstream.accepts()
    is_alike(await upstream.gets_request(), body)
    assert (await upstream.tells(client, ok())).status == 200
    await edge.until(lambda: not files(edge))
    # Both connections go on.
    await client.sends(get())
    assert (await upstream.serves(client, ok())).status == 200


async def test_a_client_that_trickles_holds_no_upstream(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "100ms", "body_rate": "10KiB"}
    client = await edge.client()
    await client.sends(sized(1000))
    while not client.has():
        client.tries(b"x")
        await asyncio.sleep(0.005)
    is_problem(await client.gets_answer(), 408)
    await client.gets_cut()
    assert not edge.upstream.is_asked()


@pytest.mark.parametrize("how", ["length", "at once", "chunked"])
async def test_a_body_that_is_too_large_is_413(edge: Edge, how: str) -> None:
    edge.config["upstreams"]["api"]["buffer"] = "1KiB"
    client = await edge.client()
    if how == "chunked":
        await client.sends(head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), b"300\r\n")
        await edge.settles()
        await client.sends(b"x" * 0x300, b"\r\n101\r\n", b"x" * 0x101, b"\r\n")
    else:
        await client.sends(sized(1025), b"x" * 1025 if how == "at once" else b"")
    is_problem(await client.gets_answer(), 413)
    await client.gets_eof()
    assert not edge.upstream.is_asked()


async def test_client_that_expects_100_continue_gets_it(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(sized(3, "Expect: 100-continue"))
    await client.gets(CONTINUE)
    await client.sends(b"abc")
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request()).body == b"abc"
    assert (await upstream.tells(client, ok())).status == 200


async def test_a_client_that_leaves_leaves_nothing(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(sized(len(BODY)), BODY[:MIB])
    await edge.until(lambda: files(edge))
    client.aborts()
    await edge.until(lambda: not files(edge))
    await edge.until(lambda: not edge.runtime.connections.clients)


async def test_an_upstream_that_leaves_within_a_body_from_the_disk_is_a_fault(edge: Edge) -> None:
    client, upstream = await edge.opens(sized(len(BODY)), BODY)
    upstream.aborts()
    is_fault(await client.gets_answer(), 502, "connection_terminated")
    await edge.until(lambda: not files(edge))


async def test_an_early_response_arrives_and_its_connection_is_not_reused(edge: Edge) -> None:
    client, upstream = await edge.opens(sized(len(BODY)), BODY)
    assert (
        await upstream.tells(client, head("HTTP/1.1 413 Content Too Large", "Content-Length: 4") + b"long")
    ).body == b"long"
    await upstream.gets_cut()
    another = await edge.brings(client, get())
    assert (await another.tells(client, ok())).status == 200


async def test_refused_connection_sends_a_buffered_request_to_another_endpoint(edge: Edge) -> None:
    other = edge.adds_endpoint()
    edge.upstream.refuses()
    edge.config["upstreams"]["api"]["host"] = "upstream"
    client = await edge.client()
    edge.endpoint(1).outstanding += 1
    await client.sends(sized(len(BODY)), BODY)
    upstream = await other.accepts()
    request = await upstream.gets_request()
    edge.endpoint(1).outstanding -= 1
    is_alike(request, BODY)
    assert request["Host"] == f"127.0.0.1:{other.port}"
    assert (await upstream.tells(client, ok())).status == 200


async def test_buffered_request_without_a_healthy_endpoint_answers_503(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(sized(4), b"ab")
    await edge.until(lambda: any(client.exchange for client in edge.runtime.connections.clients))
    edge.endpoint().state = DOWN
    edge.endpoint().service._redraw()
    is_fault(await client.asks(b"cd"), 503, "destination_unavailable")
    edge.endpoint().state = HEALTHY
    edge.endpoint().service._redraw()


async def test_a_disk_that_is_full_is_503(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    client = await edge.client()
    answer = await client.asks(sized(len(BODY)), BODY[:MIB])
    is_problem(answer, 503)
    assert answer["Retry-After"] == "1"
    await client.gets_eof()


async def test_all_bodies_together_have_so_much_room_and_no_more(
    edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    edge.config["limits"] = {"buffered": "6MiB"}  # Of which an address gets half.
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    first = await edge.client()
    await first.sends(sized(len(BODY)), BODY[:-1])
    (at_edge,) = edge.runtime.connections.clients
    await edge.until(lambda: at_edge.exchange and at_edge.exchange.bytes_in == len(BODY) - 1, "all of that is in")
    for _ in range(2):
        second = await edge.client()
        await second.sends(sized(len(BODY)))
        second.tries(BODY)
        answer = await second.gets_answer()
        is_problem(answer, 503)
        assert answer["Retry-After"] == "1"
        await edge.until(lambda: files(edge) == 1, "and nothing of it is left")
    assert edge.count("edge_shed_total", "0") == 2
    assert "".join(capsys.readouterr()).count("a body is refused: its address has as many bytes on disk") == 1
    elsewhere = await edge.client()
    await elsewhere.sends(sized(MIB, "X-Forwarded-For: 192.0.2.9"), BODY[: MIB - 1])
    await edge.until(lambda: files(edge) == 2, "another address has a share of its own")
    elsewhere.aborts()
    await edge.until(lambda: files(edge) == 1, "the file is deleted")
    small, upstream = await edge.forwards(sized(1000), b"x" * 1000)
    assert (await upstream.tells(small, ok())).status == 200, "a body that fits into memory passes"
    await first.sends(BODY[-1:])
    is_alike(await upstream.gets_request(), BODY)
    assert (await upstream.tells(first, ok())).status == 200
    await edge.until(lambda: edge.runtime.body_space.used_bytes == 0, "and there is room again")


@pytest.mark.parametrize(("most", "again"), [(256 << 10, True), (100, False)], ids=["memory", "disk"])
async def test_request_lost_on_an_idle_connection_is_retried_only_from_memory(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, most: int, again: bool
) -> None:
    monkeypatch.setattr(buffered_body, "MEMORY_BYTES_MAX", most)
    client, kept = await edge.serves()
    edge.endpoint().idle_lifetime.seen_seconds = 3600.0  # So it may have what cannot be sent again.
    await client.sends(sized(1000, method="PUT"), b"x" * 500)
    await edge.settles()
    await client.sends(b"x" * 500)
    assert len((await kept.gets_request()).body) == 1000
    kept.aborts()
    if again:
        another = await edge.upstream.accepts()
        assert len((await another.gets_request()).body) == 1000
        assert (await another.tells(client, ok())).status == 200
    else:
        is_fault(await client.gets_answer(), 502, "connection_terminated")


async def test_bytes_in_of_a_buffered_request_equal_its_body(edge: Edge) -> None:
    edge.config["meters"] = {"in": {"count": "bytes_in"}}
    client = await edge.client()
    head_ = head("POST /v1/x HTTP/1.1", "Host: h", f"X-API-Key: {UNLIMITED}", f"Content-Length: {len(BODY)}")
    upstream = await edge.brings(client, head_, BODY)
    assert (await upstream.tells(client, ok())).status == 200
    assert edge.usage() == {("free", "in", "v1"): len(BODY)}
