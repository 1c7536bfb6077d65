"""Bytes after the end of an answer: the answer is whole, and its connection serves no further request.

The tables of the contract cover extra bytes in one read with the answer. These tests need a worker: they check
counters, logs, and bytes that arrive later.
"""

import asyncio
import gzip
from typing import Any

import pytest

from tests.support.logs import capture_logs
from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import Message, Wire

BODY = bytes(range(256)) * 4096
"""1 MiB: more than one read."""
POISON = ok(b"poison")


def surplus(edge: Edge, came: str) -> int:
    """Return the number of upstream connections dropped because of extra bytes."""
    return edge.count("edge_upstream_surplus_total", "api", came)


async def goes_on_alone(edge: Edge, client: Wire, upstream: Wire) -> None:
    """Require that the upstream connection is closed and the client's next request uses another one."""
    await upstream.gets_cut()
    another = await edge.brings(client, get())
    assert (await another.tells(client, ok(b"next"))).body == b"next"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("extra", [b"\r\n", b"}", POISON, bytes(600_000)])
async def test_a_post_that_was_done_is_answered_counted_and_no_failure(edge: Edge, extra: bytes, apart: bool) -> None:
    edge.config["meters"] = {"requests": {"count": "requests"}, "out": {"count": "bytes_out"}}
    client, upstream = await edge.forwards(post(b"buy"))
    first = head("HTTP/1.1 200 OK", f"Content-Length: {len(BODY)}")
    if apart:
        await upstream.sends(first, BODY[:1000])
        assert (await client.gets_head()).status == 200
        assert await client.gets_bytes(1000) == BODY[:1000]
        first = b""
    with capture_logs() as logged:
        try:
            await upstream.sends(first, BODY[1000 * apart :], extra)
        except ConnectionError:
            assert len(extra) > 1000  # The edge closes the connection before it has read all bytes.
        rest = await client.gets_bytes(len(BODY) - 1000) if apart else (await client.gets_answer()).body
        await edge.until(lambda: surplus(edge, "answer") == 1)
    assert rest == BODY[1000 * apart :]
    lines: list[Any] = [line for line in logged if line["event"] == "an upstream sent more than its answer"]
    assert [(line["about"], line["came"]) for line in lines] == [(f"127.0.0.1:{edge.upstream.port}", "answer")]
    assert lines[0]["bytes"] >= 1
    assert len(lines[0]["request_id"]) == 36
    assert edge.usage()["-", "out", "public"] == len(BODY)
    assert edge.count("edge_requests_total", "public", "-", "200") == 1
    assert edge.metrics("edge_upstream_errors_total") == {}
    assert edge.endpoint().errors == 0
    await goes_on_alone(edge, client, upstream)


async def test_a_compressed_answer_is_whole(edge: Edge) -> None:
    edge.config["routes"][1]["compress"] = True
    text = b"hello, world\n" * 30_000
    client, upstream = await edge.forwards(get("/public/", "Accept-Encoding: gzip"))
    answer = await upstream.tells(client, ok(text, "Content-Type: text/plain"), b"\r\n")
    assert gzip.decompress(answer.body) == text
    await goes_on_alone(edge, client, upstream)
    assert surplus(edge, "answer") == 1


async def test_an_answer_to_a_body_that_was_gathered_is_whole(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["buffer"] = "1MiB"
    client, upstream = await edge.forwards(post(b"x" * 400_000))
    assert (await upstream.tells(client, ok(), b"\r\n")).body == b"hello"
    await goes_on_alone(edge, client, upstream)


@pytest.mark.parametrize("asked", ["GET", "HEAD"])
@pytest.mark.parametrize("late", [b"\r\n", POISON])
async def test_bytes_on_an_idle_upstream_connection_are_dropped_as_surplus(edge: Edge, asked: str, late: bytes) -> None:
    client, upstream = await edge.forwards(head(f"{asked} /public/ HTTP/1.1", "Host: h"))
    await upstream.sends(ok() if asked == "GET" else head("HTTP/1.1 200 OK", "Content-Length: 5"))
    assert (await client.gets_answer(asked)).status == 200
    await edge.until(lambda: len(edge.endpoint().idle) == 1)
    with capture_logs() as logged:
        await upstream.sends(late)
        await edge.until(lambda: surplus(edge, "idle") == 1)
    assert [(line["event"], line["bytes"]) for line in logged] == [
        ("an upstream sent what nothing asked for", len(late))
    ]
    await goes_on_alone(edge, client, upstream)


async def test_surplus_bytes_while_a_slow_client_reads_are_dropped(edge: Edge) -> None:
    client = await edge.client(receives=4096)
    await client.sends(get())
    upstream = await edge.upstream.takes()
    (held,) = edge.runtime.connections.clients

    async def takes_it_late() -> Message:
        await edge.until(lambda: held.write_paused)
        return await client.gets_answer()

    _, answer = await asyncio.gather(upstream.sends(ok(BODY * 6), POISON), takes_it_late())
    assert answer.body == BODY * 6
    await edge.until(lambda: surplus(edge, "answer") + surplus(edge, "idle") == 1)
    await goes_on_alone(edge, client, upstream)


LENT = {
    "in one piece": (b"\r\n" + ok(b"yours"),),
    "alone": (b"\r\n", ok(b"yours")),
    "as of a shell": (b"\n", ok(b"yours")),
    "two": (b"\r\n\r\n" + ok(b"yours"),),
    "in chunks": (b"\r\n", head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunks(b"yours")),
    "in front of 100": (b"\r\n", head("HTTP/1.1 100 Continue") + ok(b"yours")),
}


@pytest.mark.parametrize("how", LENT)
async def test_a_line_end_that_the_next_request_meets_does_not_fail_it(edge: Edge, how: str) -> None:
    """The line end may have been in flight when the request was sent, and the POST must not appear to have failed."""
    client, upstream = await edge.serves()
    await client.sends(post(b"buy"))
    assert (await upstream.gets_request()).body == b"buy"
    for piece in LENT[how]:
        await upstream.sends(piece)
        await edge.settles()
    answer = await client.gets_answer()
    if answer.status == 100:
        answer = await client.gets_answer()
    assert (answer.status, answer.body) == (200, b"yours")
    assert surplus(edge, "lent") == 1
    await goes_on_alone(edge, client, upstream)


async def test_surplus_bytes_are_not_parsed_as_the_next_answer(edge: Edge) -> None:
    client, upstream = await edge.serves()
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(b"}" + ok(b"mine"))
    answer = await client.gets_answer()
    assert (answer.status, answer["Proxy-Status"]) == (502, "edgeproxy; error=http_protocol_error")
    await goes_on_alone(edge, client, upstream)


async def test_a_request_that_met_a_line_end_and_no_answer_is_not_sent_again(edge: Edge) -> None:
    client, upstream = await edge.serves()
    await client.sends(get())
    await upstream.gets_request()
    await upstream.sends(b"\r\n")
    await edge.until(lambda: surplus(edge, "lent") == 1)
    upstream.closes()
    answer = await client.gets_answer()
    assert (answer.status, answer["Proxy-Status"]) == (502, "edgeproxy; error=connection_terminated")


async def test_a_new_connection_begins_with_an_answer(edge: Edge) -> None:
    client, upstream = await edge.forwards()
    await upstream.sends(b"\r\n" + ok())
    assert (await client.gets_answer()).status == 502
    await upstream.gets_cut()
    assert edge.metrics("edge_upstream_surplus_total") == {}
