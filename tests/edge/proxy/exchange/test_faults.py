"""Failing upstreams: the client gets an error, and never takes a part of an answer for a whole one."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from edgeproxy.edge.proxy.connections import connector
from tests.edge.proxy.asking import is_problem
from tests.edge.proxy.failing import is_fault
from tests.support.logs import capture_logs
from tests.support.transcript import Edge, chunks, get, head, ok, post

# ---- connecting


async def test_an_upstream_that_refuses_connections_is_502(edge: Edge) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    for _ in range(2):
        answer = await client.asks(get())
        is_fault(answer, 502, "connection_refused")
        assert "Connection" not in answer
    # The only endpoint is asked twice.
    assert edge.count("edge_upstream_errors_total", "api", "connection_refused") == 4
    assert edge.count("edge_requests_total", "public", "-", "502") == 2
    assert edge.usage() == {}


async def test_an_upstream_that_takes_no_connection_in_time_is_504(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"connect": "50ms"}
    edge.upstream.listening.close()
    # A listening socket whose queue is full answers no connection attempt.
    with socket.create_server(("127.0.0.1", edge.upstream.port), backlog=0) as full:
        queued = []
        for _ in range(4):
            end = socket.socket()
            end.setblocking(False)
            end.connect_ex(("127.0.0.1", edge.upstream.port))
            queued.append(end)
        client = await edge.client()
        is_fault(await client.asks(get()), 504, "connection_timeout")
        for end in queued:
            end.close()
        full.close()


async def test_the_only_endpoint_is_connected_to_once_more(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is being restarted. Nothing was sent, so also a POST goes there."""
    await edge.starts()
    dial, refused = connector.dial, iter([ConnectionRefusedError(errno.ECONNREFUSED, "refused")])

    async def refuses_once(*asked: Any) -> None:
        for refusal in refused:
            raise refusal
        await dial(*asked)

    monkeypatch.setattr(connector, "dial", refuses_once)
    received, answer = await edge.passes(post(b"once"), ok())
    assert (received.body, answer.status) == (b"once", 200)


async def test_the_log_says_which_request_met_an_upstream_that_cannot_be_reached(edge: Edge) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    with capture_logs() as lines:
        answer = await client.asks(get())
    (line,) = lines
    assert (line["event"], line["about"]) == ("upstream unreachable", f"127.0.0.1:{edge.upstream.port}")
    assert line["request_id"] == answer["X-Request-Id"]


async def test_request_answers_502_after_two_unreachable_endpoints(edge: Edge) -> None:
    for _ in range(2):
        edge.adds_endpoint().refuses()
    edge.upstream.refuses()
    client = await edge.client()
    is_fault(await client.asks(get()), 502, "connection_refused")
    assert edge.count("edge_upstream_errors_total", "api", "connection_refused") == 2
    assert edge.count("edge_requests_total", "public", "-", "502") == 1


# ---- heads


async def test_half_a_head_does_not_put_the_deadline_off(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "100ms"}
    client, upstream = await edge.forwards()

    async def trickles() -> None:
        while not client.has():
            try:
                await upstream.sends(b"x")
            except ConnectionError:
                return
            await asyncio.sleep(0.005)

    await upstream.sends(b"HTTP/1.1 200 OK\r\nX-A: ")
    await trickles()
    is_problem(await client.gets_answer(), 504)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("bound", "size", "status"),
    [
        (None, 63, 200),
        (None, 65, 502),
        ("16KiB", 15, 200),
        ("16KiB", 17, 502),
        ("256KiB", 255, 200),
        ("256KiB", 257, 502),
    ],
)
async def test_answer_head_is_bounded_by_the_upstream_setting(
    edge: Edge, bound: str | None, size: int, status: int, apart: bool
) -> None:
    """Also the second time, when shorter ones are remembered."""
    if bound is not None:
        edge.config["upstreams"]["api"]["head"] = bound
    client = await edge.client()
    for _ in range(2):
        upstream = await edge.brings(client, get())
        answer = ok(b"hello", *["X-Pad: " + "p" * 1015] * size, "Connection: close")
        if apart:
            await upstream.sends(answer[:10_000])
            await edge.settles()
        try:
            await upstream.sends(answer[10_000 * apart :])
        except ConnectionError:
            assert status == 502
        got = await client.gets_answer()
        assert (got.status, len(got.all("X-Pad"))) == (status, size if status == 200 else 0)
    if status == 502:
        assert edge.count("edge_upstream_errors_total", "api", "http_response_header_section_size") == 2


# ---- bodies


TRUNCATED = {
    "length": head("HTTP/1.1 200 OK", "Content-Length: 10") + b"abc",
    "length, nothing": head("HTTP/1.1 200 OK", "Content-Length: 10"),
    "chunks": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n",
    "within a chunk": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"5\r\nabc",
    "within the last chunk": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n",
}


@pytest.mark.parametrize("name", TRUNCATED)
@pytest.mark.parametrize("how", ["closes", "aborts"])
async def test_a_truncated_answer_never_looks_whole(edge: Edge, name: str, how: str) -> None:
    """RFC 9112 section 8."""
    client, upstream = await edge.forwards()
    await upstream.sends(TRUNCATED[name])
    answer = await client.gets_head()
    await edge.settles()
    getattr(upstream, how)()
    rest = await client.gets_cut()
    assert not rest.endswith(b"0\r\n\r\n")
    if "Content-Length" in answer:
        assert len(rest) < 10
    assert edge.count("edge_upstream_errors_total", "api", "http_response_incomplete") == 1
    # The client got one answer, with the upstream's status.
    assert edge.metrics("edge_requests_total") == {("public", "-", "200"): [1]}


@pytest.mark.parametrize("apart", [False, True])
async def test_complete_chunked_answer_arrives_despite_trailing_bytes(edge: Edge, apart: bool) -> None:
    client, upstream = await edge.forwards()
    answer, follows = chunks(b"hello", b"world"), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    first = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
    if apart:
        await upstream.sends(first)
        await edge.settles()
        first = b""
    assert (await upstream.tells(client, first, answer, follows)).body == b"helloworld"
    await upstream.gets_eof()
    # Bytes after the answer are dropped: the next request uses a new connection.
    another = await edge.brings(client, get())
    assert (await another.tells(client, ok(b"next"))).body == b"next"


async def test_a_reset_that_comes_with_the_last_bytes_is_no_clean_end(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK"), b"abc")
    upstream.aborts()
    assert not (await client.gets_cut()).endswith(b"0\r\n\r\n")


async def test_a_slow_answer_within_its_deadlines_arrives(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "1s", "response_head": "100ms"}
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 40"))
    for _ in range(40):
        await upstream.sends(b"x")
        await asyncio.sleep(0.005)
    assert len((await client.gets_answer()).body) == 40


# ---- clients that fail


async def test_a_head_that_trickles_is_408_all_the_same(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "100ms"}
    client = await edge.client()
    await client.sends(b"GET /public/ HTTP/1.1\r\nX-A: ")
    while not client.has():
        await client.sends(b"x")
        await asyncio.sleep(0.005)
    is_problem(await client.gets_answer(), 408)


async def test_empty_lines_do_not_keep_a_connection_open(edge: Edge) -> None:
    edge.config["limits"] = {"header_timeout": "100ms"}
    client = await edge.client()
    while not client.at_end():
        await client.sends(b"\r\n")
        await asyncio.sleep(0.005)
    assert await client.gets_cut() == b""


async def test_a_body_that_trickles_within_its_deadline_arrives(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "1s"}
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "100ms"}
    client, upstream = await edge.opens(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 40"))
    for _ in range(40):
        await client.sends(b"x")
        await asyncio.sleep(0.005)
    assert len(await upstream.gets_bytes(40)) == 40
    assert (await upstream.tells(client, ok())).status == 200


# ---- faults and what surrounds them


async def test_a_fault_with_the_body_still_to_come_ends_the_clients_connection(edge: Edge) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    answer = await client.asks(head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 10"), b"abc")
    is_fault(answer, 502, "connection_refused")
    assert answer["Connection"] == "close"
    await client.gets_eof()


async def test_fault_answer_honours_connection_close(edge: Edge) -> None:
    edge.upstream.refuses()
    client = await edge.client()
    answer = await client.asks(get("/public/", "Connection: close"))
    assert (answer.status, answer["Connection"]) == (502, "close")
    await client.gets_eof()
