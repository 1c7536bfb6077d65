"""An edge that is replaced by another one, and then drained, under clients that keep HTTP/2 connections: none of their
requests is lost, as each connection says how far it was served (RFC 9113 section 6.8)."""

import asyncio
import signal
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.edge.http2.peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    block,
    frame,
    settings,
    update,
)

STREAMS = 8
REFUSED_STREAM = 7
ALL_STREAMS = (1 << 31) - 1


def request(number: int) -> bytes:
    path = b"/?wait=30&size=9000" if number % 3 else b"/?size=30"
    fields = [(b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b":authority", b"edge.test")]
    fields.append((b"x-api-key", key_of(UNLIMITED).encode()))
    return frame(HEADERS, END_HEADERS | END_STREAM, number, block(fields))


class Clients(threading.Thread):
    """Clients with a connection each and some streams on it at a time, which go on until they are told to end.

    They begin streams until they hear which was the last, and connect anew then. `seen` counts what became of streams:
    answered, to be sent again by the rules, or lost.
    """

    def __init__(self, port: int, count: int) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self._port, self._count = port, count
        self._over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._count):
                clients.create_task(self._stay())

    async def _stay(self) -> None:
        while not self._over.is_set():
            try:
                reader, writer = await asyncio.open_connection(HOST, self._port)
            except ConnectionRefusedError:
                self.seen["refused"] += 1
                await asyncio.sleep(0.01)
                continue
            self.seen["connections"] += 1
            await Connection(self.seen, self._over, reader, writer).serve()
            writer.close()

    def answered(self, more: int) -> None:
        expected = self.seen["answered"] + more
        until(lambda: self.seen["answered"] >= expected, "requests are answered")

    def __enter__(self) -> "Clients":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(30)
        assert not self.is_alive()


class Connection:
    """One connection of such a client."""

    def __init__(
        self,
        seen: Counter[str],
        over: threading.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._seen, self._over, self._reader, self._writer = seen, over, reader, writer
        self._open: set[int] = set()
        self._next = 1
        self._last = ALL_STREAMS
        """The last stream that the edge says it serves."""

    async def serve(self) -> None:
        self._writer.write(PREFACE + settings((4, 1 << 24)) + update(0, 1 << 30))
        try:
            self._begin_streams()
            while self._open:
                prefix = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(prefix[:3], "big"))
                self._take(prefix[3], prefix[4], int.from_bytes(prefix[5:], "big"), payload)
                self._begin_streams()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            for number in self._open:
                self._seen["again" if number > self._last else f"lost: {error!r}"] += 1

    def _begin_streams(self) -> None:
        while self._last == ALL_STREAMS and len(self._open) < STREAMS and not self._over.is_set():
            self._writer.write(request(self._next))
            self._open.add(self._next)
            self._next += 2

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS and payload.removeprefix(b"\x20")[:1] != b"\x88":
            self._seen[f"not 200: {payload!r}"] += 1
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self._open.discard(number)
            self._seen["answered"] += 1
        elif kind == RST_STREAM:
            self._open.discard(number)
            code = int.from_bytes(payload, "big")
            self._seen["again" if code == REFUSED_STREAM else f"reset with {code}"] += 1
        elif kind == GOAWAY:
            self._last = min(self._last, int.from_bytes(payload[:4], "big"))
            self._seen[f"goaway {int.from_bytes(payload[4:8], 'big')}"] += 1
            for late in [each for each in self._open if each > self._last]:
                self._open.discard(late)
                self._seen["again"] += 1


def test_an_edge_that_is_replaced_and_one_that_is_drained_lose_no_stream(tmp_path: Path, upstream: Upstream) -> None:
    with closing(Edge(tmp_path / "edge", upstream.port)) as edge:
        edge.start(listen={"address": f"{HOST}:{edge.port}", "http2": True})
        seen = replace_and_drain(edge)
    odd = set(seen) - {"answered", "again", "refused", "connections", "goaway 0"}
    assert not odd, seen
    # Each connection received two GOAWAY frames, unless it had no open stream when the second was due.
    assert seen["goaway 0"] >= seen["connections"]
    assert seen["answered"] > 400


def replace_and_drain(edge: Edge) -> Counter[str]:
    """Replace the edge, then drain the new one; return what became of all streams."""
    with Clients(edge.port, 6) as clients:
        clients.answered(200)
        old = edge.supervisor
        edge.begin()
        until(lambda: edge.output.count('"event": "edge serving"') == 2, "the new one serves")
        assert old.wait_after(signal.SIGTERM, 30) == 0
        clients.answered(200)
        edge.supervisor.terminate()
        assert edge.supervisor.wait(30) == 0
        until(lambda: clients.seen["refused"], "no edge listens any more")
    return clients.seen
