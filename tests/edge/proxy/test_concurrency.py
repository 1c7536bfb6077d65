"""Concurrency limits: a request acquires a slot at admission and releases it at any kind of end.

The test bed checks after every test that all slots are free.
"""

import asyncio
import random

import pytest

from tests.edge.proxy.asking import asked, asks, is_limited, request
from tests.edge.proxy.leaving import Drain
from tests.edge.proxy.second import Second
from tests.edge.proxy.tunnels import SWITCH, UPGRADE, tunnel
from tests.support.transcript import KEY, Edge, chunks, get, head, ok, post
from tests.support.wire import narrow

WITH_KEY = f"X-API-Key: {KEY}"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """An edge whose tier `basic` allows two requests at once."""
    edge.config["tiers"]["basic"] = {"limits": [], "concurrency": 2}
    return edge


async def is_over(edge: Edge) -> None:
    """Wait until all slots are released."""
    await edge.until(lambda: not edge.in_use(), "every slot is released")


# ---- the bound


async def test_a_third_request_at_once_is_refused(edge: Edge) -> None:
    one, upstream = await asked(edge)
    other, _ = await asked(edge)
    assert edge.in_use() == 2
    client = await edge.client()
    answer = await asks(client)
    said = is_limited(answer, "concurrency")
    assert answer["Retry-After"] == "1"
    assert said["detail"] == "Too many requests at once (concurrency: 2 of 2 under way); try again when one has ended"
    assert "Connection" not in answer
    assert answer["RateLimit-Policy"] == '"concurrency";q=2;qu="concurrent-requests"'
    assert edge.count("edge_rate_limited_total", "basic", "concurrency", "enforce") == 1
    assert edge.count("edge_requests_total", "v1", "basic", "429") == 1
    assert edge.used() == {"concurrency": 2}
    await upstream.tells(one, ok())
    assert edge.in_use() == 1
    await client.sends(request())
    assert (await upstream.serves(client, ok())).status == 200
    other.aborts()
    await is_over(edge)


async def test_concurrency_is_bounded_over_all_workers(edge: Edge) -> None:
    await asked(edge)
    second = Second(edge)
    await second.starts()
    there = await second.client()
    upstream = await edge.brings(there, request())
    assert edge.in_use() == 2
    for full in (await edge.client(), await second.client()):
        is_limited(await asks(full), "concurrency")
        full.closes()
    assert (await upstream.tells(there, ok())).status == 200
    there.closes()
    assert edge.in_use() == 1
    await second.ends()


# ---- the end of a request


ANSWERS = {
    "whole": ok(),
    "empty": ok(b""),
    "an error": head("HTTP/1.1 500 Oh", "Content-Length: 0"),
    "no content": head("HTTP/1.1 204 No Content"),
    "not modified": head("HTTP/1.1 304 Not Modified"),
    "chunked": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc"),
    "its connection closes": ok(b"hello", "Connection: close"),
    "after hints": head("HTTP/1.1 103 Early Hints") + ok(),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_slot_is_released_with_the_last_byte_of_a_response(edge: Edge, name: str) -> None:
    client, upstream = await asked(edge)
    assert edge.in_use() == 1
    await upstream.sends(ANSWERS[name])
    if name == "after hints":
        assert (await client.gets_head()).status == 103
    await client.gets_answer()
    assert edge.in_use() == 0


STREAMS = {
    "sized": (head("HTTP/1.1 200 OK", "Content-Length: 6"), b"abc", b"abc"),
    "chunked": (head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"3\r\nabc\r\n", chunks(b"abc")),
    "until close": (head("HTTP/1.1 200 OK"), b"abc", b"abc"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_streamed_answer_occupies_its_slot_until_its_end(edge: Edge, name: str) -> None:
    first, piece, rest = STREAMS[name]
    client, upstream = await asked(edge)
    await upstream.sends(first)
    answer = await client.gets_head()
    assert edge.in_use() == 1
    await upstream.sends(piece)
    if "Content-Length" in answer:
        await client.gets(b"abc")
    else:
        await client.gets(b"3\r\nabc\r\n")
    assert edge.in_use() == 1
    await upstream.sends(rest)
    if name == "until close":
        assert edge.in_use() == 1
        upstream.closes()
    await is_over(edge)
    await client.gets_until(b"abc" if "Content-Length" in answer else b"0\r\n\r\n")


async def test_pipelined_requests_occupy_one_slot_in_turn(edge: Edge) -> None:
    edge.config["customers"]["acme"]["concurrency"] = 1
    client, upstream = await asked(edge, request() * 20)
    for n in range(20):
        if n:
            await upstream.gets_request()
        assert edge.in_use() == 1
        assert (await upstream.tells(client, ok())).status == 200
    assert edge.in_use() == 0


# ---- clients that leave


async def test_an_unread_buffered_response_holds_no_slot(edge: Edge) -> None:
    """The connection bounds the unread response. The request is over."""
    client = await edge.client(receives=4096)
    await edge.until(lambda: edge.runtime.connections.clients)
    (kept,) = edge.runtime.connections.clients
    narrow(kept.transport)
    upstream = await edge.brings(client, request())
    await upstream.sends(ok(bytes(100_000)))
    await edge.until(lambda: kept.write_paused)
    await is_over(edge)
    assert len((await client.gets_answer()).body) == 100_000


async def test_many_leaving_clients_leave_no_slot_in_use(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)
    edge.upstream.answers(
        lambda request: chance.choice(
            (
                ok(bytes(chance.choice((0, 10, 100_000)))),
                head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"a" * 1000, b"b" * 70_000),
                head("HTTP/1.1 103 Early Hints") + ok(),
                b"nonsense\r\n\r\n",
            )
        )
    )
    requests = [
        request(),
        request() * 3,
        post(bytes(100_000), "/v1/x", WITH_KEY),
        head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Transfer-Encoding: chunked") + chunks(b"x" * 50_000),
        head("GET /v1/x HTTP/1.0", WITH_KEY),
        request("/v1/x", "Connection: close"),
        request(method="HEAD"),
    ]
    statuses = []

    async def comes_and_goes() -> None:
        client = await edge.client()
        sent = chance.choice(requests)
        cut = chance.choice((len(sent), len(sent), chance.randrange(len(sent))))
        try:
            await client.sends(sent[:cut])
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
                statuses.append(client.has()[9:12])
                if chance.random() < 0.5:
                    client.takes_all()
        except ConnectionError:
            pass
        chance.choice((client.closes, client.aborts))()

    for _ in range(20):
        await asyncio.gather(*(comes_and_goes() for _ in range(10)))
        assert edge.in_use() <= 2
    await edge.until(lambda: not edge.runtime.connections.clients)
    assert b"429" in statuses
    assert edge.in_use() == 0


# ---- failing upstreams, and refusals after admission


@pytest.mark.parametrize("name", ["sized", "chunked"])
async def test_a_cut_off_response_releases_its_slot(edge: Edge, name: str) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(*STREAMS[name][:2])
    await client.gets_until(b"abc")
    upstream.closes()
    await is_over(edge)
    await client.gets_reset()


async def test_a_timed_out_response_releases_its_slot(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "100ms"}
    client, _ = await asked(edge)
    assert (await client.gets_answer()).status == 504
    assert edge.in_use() == 0


async def test_retried_request_occupies_one_slot(edge: Edge) -> None:
    edge.config["customers"]["acme"]["concurrency"] = 1
    client, stale = await asked(edge)
    await stale.tells(client, ok())
    await client.sends(request())
    await stale.gets_request()
    stale.closes()
    another = await edge.upstream.takes()
    assert edge.in_use() == 1
    assert (await another.tells(client, ok())).status == 200
    assert edge.in_use() == 0


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_too_large_body_releases_its_slot(edge: Edge, at_once: bool) -> None:
    edge.config["limits"] = {"body": "8B"}
    first = head("POST /v1/x HTTP/1.1", "Host: h", WITH_KEY, "Transfer-Encoding: chunked")
    if at_once:
        client = await edge.client()
        assert (await client.asks(first, chunks(b"x" * 9))).status == 413
    else:
        client, upstream = await asked(edge, first + b"5\r\nhello\r\n")
        assert edge.in_use() == 1
        assert (await client.asks(b"5\r\nworld\r\n")).status == 413
        await upstream.gets_cut()
    assert edge.in_use() == 0


async def test_a_stalled_body_releases_its_slot(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "100ms"}
    client, upstream = await asked(edge, post(b"abcdef", "/v1/x", WITH_KEY)[:-3])
    assert (await client.gets_answer()).status == 408
    assert edge.in_use() == 0
    await upstream.gets_cut()


# ---- tunnels


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_tunnel_occupies_its_slot_until_one_side_closes(edge: Edge, who: str) -> None:
    client, upstream = await tunnel(edge, "/v1/ws", WITH_KEY)
    assert edge.in_use() == 1
    await client.reaches(upstream, b"\x81\x02hi")
    assert edge.in_use() == 1
    leaves, stays = (client, upstream) if who == "client" else (upstream, client)
    leaves.closes()
    await stays.gets_eof()
    stays.closes()
    await is_over(edge)


# ---- a draining worker


async def test_a_draining_worker_releases_slots_of_finished_requests(edge: Edge) -> None:
    client, upstream = await asked(edge)
    drain = Drain(edge)
    await edge.settles()
    assert edge.in_use() == 1
    assert (await upstream.tells(client, ok()))["Connection"] == "close"
    await client.gets_eof()
    assert edge.in_use() == 0
    client.closes()
    await drain.ends()


async def test_a_draining_worker_releases_slots_of_cut_requests(edge: Edge) -> None:
    waiting, first = await asked(edge)
    socket, second = await asked(edge, get("/v1/ws", *UPGRADE, WITH_KEY))
    await second.sends(SWITCH)
    assert (await socket.gets_head()).status == 101
    await socket.sends(b"\x00")  # Invalid WebSocket data, so the edge cannot send a close frame.
    await second.gets(b"\x00")
    drain = Drain(edge, 0.1)
    await edge.settles()
    assert edge.in_use() == 2
    for end in (waiting, socket, first, second):
        await end.gets_cut()
    await drain.ends()
    assert edge.in_use() == 0


# ---- reloads during requests


async def test_a_lowered_concurrency_applies_to_the_next_request(edge: Edge) -> None:
    one, first = await asked(edge)
    other, second = await asked(edge)
    edge.config["tiers"]["basic"]["concurrency"] = 1
    await edge.reloads()
    client = await edge.client()
    is_limited(await asks(client), "concurrency")
    assert (await first.tells(one, ok())).status == 200
    is_limited(await asks(client), "concurrency")
    assert (await second.tells(other, ok())).status == 200
    assert edge.in_use() == 0
    await client.sends(request())
    await second.gets_request()
    is_limited(await asks(one), "concurrency")
    assert (await second.tells(client, ok())).status == 200


async def test_a_removed_and_restored_limit_counts_held_slots_once(edge: Edge) -> None:
    held, first = await asked(edge)
    del edge.config["tiers"]["basic"]["concurrency"]
    await edge.reloads()
    free = [await asked(edge) for _ in range(3)]
    assert edge.in_use() == 1
    edge.config["tiers"]["basic"]["concurrency"] = 2
    await edge.reloads()
    last, second = await asked(edge)
    assert edge.in_use() == 2
    client = await edge.client()
    is_limited(await asks(client), "concurrency")
    for waits, upstream in free:
        await upstream.tells(waits, ok())
    assert edge.in_use() == 2, "requests admitted without the limit release no slot"
    for waits, upstream in ((held, first), (last, second)):
        await upstream.tells(waits, ok())
    assert edge.in_use() == 0


async def test_a_tunnel_of_a_removed_customer_releases_its_slot(edge: Edge) -> None:
    client, upstream = await tunnel(edge, "/v1/ws", WITH_KEY)
    del edge.config["customers"]["acme"]
    edge.config["keys"] = [key for key in edge.config["keys"] if key["customer"] != "acme"]
    assert edge.in_use() == 1
    await edge.reloads()
    for wire in (client, upstream):
        await wire.gets_cut()
    await is_over(edge)
