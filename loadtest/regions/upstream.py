"""The service behind all regions: it answers at once, and remembers when it was asked, and for whom.

A process of its own (`python -m loadtest.regions.upstream PORT`). `GET /-/arrivals`, asked directly, tells of each
customer the monotonic times of its requests, which all processes of a machine share; `GET /-/forget` forgets them.
"""

import asyncio
import gc
import sys
from array import array
from collections import defaultdict
from time import monotonic

import orjson
import uvloop

from loadtest.testbed.ports import HOST

STAMP = b"\r\nx-customer-id:"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
Arrivals = defaultdict[bytes, "array[float]"]


class Connection(asyncio.Protocol):
    """One of an edge's workers, requests without a body one after another."""

    transport: asyncio.Transport

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._rest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head, data = data[: end + 2], data[end + 4 :]
            if head.startswith(b"GET /-/"):
                self._tell(head)
                continue
            at = head.lower().find(STAMP)
            customer = head[at + len(STAMP) : head.index(b"\r\n", at + 2)].strip() if at >= 0 else b"-"
            self._arrivals[customer].append(monotonic())
            self.transport.write(ANSWER)
        self._rest = data

    def _tell(self, head: bytes) -> None:
        if head.startswith(b"GET /-/forget "):
            self._arrivals.clear()
        told = orjson.dumps({customer.decode(): times.tolist() for customer, times in self._arrivals.items()})
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))


async def serve(port: int) -> None:
    """For ever."""
    arrivals: Arrivals = defaultdict(lambda: array("d"))
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(arrivals), HOST, port, reuse_port=True, backlog=1000
    )
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
