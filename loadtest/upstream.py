"""The service behind all edges of a load test: it answers after a delay, and counts its answers by customer.

A process of its own (`python -m loadtest.upstream PORT DELAY`, seconds). `?size=N` requests N bytes. Direct requests
of the test: `GET /-/counts` returns the answered requests by customer (`direct`: without an edge), and `GET
/-/delay?ms=N` sets the delay.
"""

import asyncio
import gc
import re
import sys
from collections import Counter

import orjson
import uvloop

CUSTOMER, EDGE = b"\r\nx-customer-id:", b"\r\nx-edge-region:"
DIRECT = "direct"
USUAL = 200
"""Bytes of an answer."""
LARGEST = 256 << 10
SIZE = re.compile(rb"[?&]size=([0-9]{1,7})[& ]")
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})\r\n", re.IGNORECASE)
PATTERN = b"0123456789abcdef" * (LARGEST // 16)


class Connection(asyncio.Protocol):
    """One of an edge's workers, or a client: requests one after another, with bodies of a known length or without."""

    transport: asyncio.Transport

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._rest = b""
        self._waiting: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for handle in self._waiting:
            handle.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head, body = data[: end + 2], data[end + 4 :]
            length = LENGTH.search(head)
            if length and len(body) < int(length[1]):
                break
            data = body[int(length[1]) :] if length else body
            if head.startswith(b"GET /-/"):
                self._answer(self._service.told(head), b"GET")
            else:
                self._later(head)
        self._rest = data

    def _later(self, head: bytes) -> None:
        lower = head.lower()
        at = lower.find(CUSTOMER)
        if at >= 0:
            customer = head[at + len(CUSTOMER) : head.index(b"\r\n", at + 2)].strip().decode()
        else:
            customer = "-" if EDGE in lower else DIRECT
        size = SIZE.search(head[: head.find(b"\r\n")])
        body = PATTERN[: min(int(size[1]), LARGEST) if size else USUAL]

        def answer() -> None:
            self._waiting.discard(handle)
            self._service.counts[customer] += 1
            self._answer(body, head.partition(b" ")[0])

        handle = asyncio.get_running_loop().call_later(self._service.delay, answer)
        self._waiting.add(handle)

    def _answer(self, body: bytes, method: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head if method == b"HEAD" else head + body)


class Service:
    """The state that all connections share."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.counts: Counter[str] = Counter()

    def told(self, head: bytes) -> bytes:
        """The answer to a request about itself."""
        if match := re.match(rb"GET /-/delay\?ms=([0-9.]+) ", head):
            self.delay = float(match[1]) / 1000
        return orjson.dumps({"delay": self.delay, "counts": self.counts})


async def serve(port: int, delay: float) -> None:
    """For ever."""
    service = Service(delay)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", port, reuse_port=True, backlog=1000
    )
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
