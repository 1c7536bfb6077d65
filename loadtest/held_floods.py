"""The memory of a worker under floods of unfinished requests.

    python -m loadtest.held_floods [--connections N]

Each flood starts an edge with one worker, opens N connections from ten loopback addresses, and has each leave something
unfinished. Printed are the worker's resident memory before, at its peak, and after the connections are closed. Exit
status 1: a peak is more than 64 MiB above the idle memory, or a polite client got no answer beside the flood.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from loadtest.bench.child import tree
from loadtest.neighbours.memory import resident
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST

MIB = 1 << 20
GROWTH_BYTES_MAX = 64 * MIB
ADDRESSES = 10
WATCH_SECONDS = 0.1
ANSWER_BYTES = 4 * MIB

FLOODS = {
    "heads that never end": b"GET /slow HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 30_000,
    "pipelined requests": b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n"
    + b"GET /slow HTTP/1.1\r\nHost: h\r\nX: "
    + b"x" * 60_000,
    "half a chunked body": b"POST /whole HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n"
    + b"x" * 200_000,
    "half a body for a buffer": b"POST /whole HTTP/1.1\r\nHost: h\r\nContent-Length: 260000\r\n\r\n" + b"x" * 200_000,
    "bodies that wait for an answer": b"POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n"
    + b"x" * 200_000,
    "unread answers": b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n",
}
"""The bytes of each connection, by the name of the flood."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer /large with much, /slow never, and anything else at once."""
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" /slow" in head.split(b"\r\n")[0]:
                while await reader.read(1 << 16):
                    pass
                return
            size = ANSWER_BYTES if b" /large" in head.split(b"\r\n")[0] else 2
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(0, size, 1 << 16):
                writer.write(b"x" * min(size, 1 << 16))
                await writer.drain()


async def flood(port: int, data: bytes, connections: int) -> list[asyncio.StreamWriter]:
    """Open connections that send this and read nothing."""
    writers = []
    for number in range(connections):
        address = f"127.0.0.{2 + number % ADDRESSES}"
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                _, writer = await asyncio.open_connection(HOST, port, local_addr=(address, 0), limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(data)
            writers.append(writer)
        await asyncio.sleep(0)
    return writers


async def is_served(port: int) -> bool:
    """Return whether a polite client of another address is answered."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET /small HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            served = b" 200 " in (await reader.read()).partition(b"\r\n")[0]
            writer.close()
            return served
    except (OSError, TimeoutError):
        return False


async def measure(name: str, connections: int, held: str) -> tuple[list[int], bool]:
    """Return the worker's memory in bytes before, at the peak and after; and whether a polite client was served."""
    upstream = await asyncio.start_server(answer, HOST, 0, limit=1 << 18)
    with tempfile.TemporaryDirectory() as folder:
        routes = [
            {"name": "whole", "path": "/whole", "upstream": "whole", "auth": "none"},
            {"name": "all", "path": "/*", "upstream": "api", "auth": "none"},
        ]
        port = upstream.sockets[0].getsockname()[1]
        edge = Edge(Path(folder) / "edge", port, workers=1, routes=routes, limits={"held": held})
        edge.settings["upstreams"]["whole"] = {"endpoints": [f"http://{HOST}:{port}"], "buffer": "1MiB"}
        await asyncio.to_thread(edge.start)
        try:
            return await _watch(edge, FLOODS[name], connections)
        finally:
            await asyncio.to_thread(edge.end)
            upstream.close()


async def _watch(edge: Edge, data: bytes, connections: int) -> tuple[list[int], bool]:
    def sample() -> int:
        return max(map(resident, tree(edge.supervisor.pid)[1:]))

    await is_served(edge.port)
    before = peak = sample()
    flooding = asyncio.create_task(flood(edge.port, data, connections))  # noqa: TID251, it ends here
    while not flooding.done():
        await asyncio.sleep(WATCH_SECONDS)
        peak = max(peak, sample())
    for _ in range(30):
        await asyncio.sleep(WATCH_SECONDS)
        peak = max(peak, sample())
    served = await is_served(edge.port)
    for writer in flooding.result():
        writer.transport.abort()
    await asyncio.sleep(1)
    return [before, peak, sample()], served


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.held_floods", description=__doc__)
    parser.add_argument("flood", nargs="*", metavar="FLOOD", help=f"of {', '.join(FLOODS)}")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--held", default="32MiB", help="limits.held (default %(default)s)")
    given = parser.parse_args(argv)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    failed = False
    print("| flood | before | peak | after | grown | polite client |\n|---|---|---|---|---|---|")
    for name in given.flood or FLOODS:
        sizes, served = asyncio.run(measure(name, given.connections, given.held))
        grown = sizes[1] - sizes[0]
        failed = failed or grown > GROWTH_BYTES_MAX or not served
        numbers = " | ".join(f"{size / MIB:.0f}" for size in (*sizes, grown))
        print(f"| {name} | {numbers} | {'served' if served else 'NOT served'} |", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
