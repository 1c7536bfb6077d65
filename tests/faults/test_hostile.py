"""Bytes that nobody should send: the edge serves on, and the upstream gets whole, unambiguous requests or none."""

import asyncio
import random
import time
from collections import Counter

import pytest

from tests.support.customers import UNLIMITED, key_of
from tests.support.edge import Edge, StartEdge
from tests.support.ports import HOST
from tests.support.upstream import Upstream

SECONDS, LONG = 5.0, 60.0
CONNECTIONS = 8
PATIENCE = 0.25
"""Seconds that a connection which may want more bytes gets."""

KEY = f"X-API-Key: {key_of(UNLIMITED)}\r\n".encode()
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
"""Without a key: read by the edge as a request it is 401, so the upstream can only get it in somebody's body."""

GADGETS = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    b"Transfer-Encoding\r\n : chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"\x00Transfer-Encoding: chunked",
    b"transfer_encoding: chunked",
    b"Content-Length: %d" % len(SMUGGLED),
    b"Content-Length: 0",
    b"Content-Length: +%d" % len(SMUGGLED),
    b"Content-Length: %d, %d" % (len(SMUGGLED), len(SMUGGLED)),
    b"Content-Length: 0x10",
    b"Content-Length: -1",
    b"Content-Length: 1_0",
    b"Content-Length:\t%d" % len(SMUGGLED),
    b"Content-Length: 99999999999999999999999",
    b"content_length: %d" % len(SMUGGLED),
    b"Connection: Content-Length",
    b"Connection: Transfer-Encoding, X-API-Key, X-Request-Id, Host",
    b"Expect: 100-continue",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"Host: b",
    b"TE: trailers",
    b"Trailer: Content-Length",
)
BODIES = (
    b"",
    SMUGGLED,
    b"0\r\n\r\n" + SMUGGLED,
    b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    b"5;x=\r\nhello\r\n0\r\nX: y\r\n\r\n" + SMUGGLED,
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    b"%x\n%b\n0\n\n" % (len(SMUGGLED), SMUGGLED),
    b"0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    b"-1\r\n" + SMUGGLED,
    b"0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED,
    b"fffffffffffffffff\r\n" + SMUGGLED,
)
SPICE = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\x0b",
    b"\xff",
    b",",
    b";",
    b"%",
    b"\r\n\r\n",
    b"0",
    b"\x85",
)


def attack(draw: random.Random) -> bytes:
    """One connection's bytes: noise, or a request with gadgets in it, of which a few bytes may be spoilt."""
    if draw.random() < 0.1:
        return draw.randbytes(draw.randrange(1, 600))
    line = draw.choice(
        (b"POST / HTTP/1.1", b"GET / HTTP/1.1", b"POST /a HTTP/1.0", b"PUT /%2e/b?x=1 HTTP/1.1", b"HEAD / HTTP/1.1")
    )
    fields = [b"Host: a", *draw.choices(GADGETS, k=draw.randrange(1, 4)), KEY.rstrip()]
    draw.shuffle(fields)
    data = line + b"\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + draw.choice(BODIES)
    for _ in range(draw.choice((0, 0, 1, 1, 2, 5))):
        at = draw.randrange(len(data))
        spice = draw.choice(SPICE)
        data = data[:at] + spice + data[at + draw.choice((0, 1, len(spice))) :]
    return data


async def throw(port: int, draw: random.Random, until: float, statuses: Counter[bytes]) -> None:
    """Attack after attack, each over a connection of its own and in pieces of any size."""
    while time.monotonic() < until:
        data = attack(draw)
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            while data:
                size = draw.choice((len(data), len(data), draw.randrange(1, 40)))
                writer.write(data[:size])
                await writer.drain()
                data = data[size:]
            if draw.random() < 0.7:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                while heard := await reader.read(1 << 16):
                    statuses[heard[9:12]] += 1
        except (ConnectionError, TimeoutError) as ended:
            statuses[type(ended).__name__.encode()] += 1
        finally:
            writer.transport.abort()


async def serve_meanwhile(edge: Edge, until: float) -> tuple[int, float]:
    """Ask properly all the time; how often, and the longest that an answer took."""
    asked, longest = 0, 0.0
    while time.monotonic() < until:
        begun = time.monotonic()
        answer = await asyncio.to_thread(edge.ask, "/proper?size=5000", key=key_of(UNLIMITED))
        assert (answer.status, len(answer.body)) == (200, 5000)
        longest = max(longest, time.monotonic() - begun)
        asked += 1
    return asked, longest


def blast(edge: Edge, upstream: Upstream, seed: int, seconds: float) -> None:
    """Attack for so long, and look at what became of the edge and of what it forwarded."""
    workers = edge.worker_pids()

    async def all_at_once() -> tuple[Counter[bytes], int, float]:
        until = time.monotonic() + seconds
        statuses: Counter[bytes] = Counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(throw(edge.port, random.Random(seed + number), until, statuses))
            served = group.create_task(serve_meanwhile(edge, until))
        return statuses, *served.result()

    statuses, asked, longest = asyncio.run(all_at_once())
    seen = upstream.seen()
    print(f"seed {seed}: {statuses.total()} attacks {dict(statuses.most_common())}, forwarded {seen['paths']};")
    print(f"{asked} proper requests meanwhile, {longest:.3f} s at most")
    assert edge.worker_pids() == workers
    assert seen["odd"] == []
    assert seen["twice"] == {}
    assert "/smuggled" not in seen["paths"]
    assert statuses[b"200"] > 0
    assert statuses[b"400"] > 0
    assert longest < 2
    assert edge.ask(key=key_of(UNLIMITED)).status == 200


def test_hostile_bytes_forward_nothing_ambiguous(start_edge: StartEdge, upstream: Upstream, seed: int) -> None:
    blast(start_edge(limits={"header_timeout": "1s", "body_idle": "1s"}), upstream, seed, SECONDS)


@pytest.mark.soak
def test_hostile_bytes_for_a_minute(start_edge: StartEdge, upstream: Upstream, seed: int) -> None:
    blast(start_edge(limits={"header_timeout": "1s", "body_idle": "1s"}), upstream, seed + 1000, LONG)
