"""The services behind the peers, each path with an answer of its own.

`python -m loadtest.neighbours.service PORT H2C_PORT`
The same process runs twice: once for the well-behaved client, once for its neighbours.
"""

import asyncio
import sys
from dataclasses import dataclass
from typing import cast

import httptools
import uvloop

from loadtest.neighbours import h2c_service

HOST = "127.0.0.1"
_ENDLESS = 1 << 40


@dataclass(frozen=True)
class Script:
    """An answer as bytes: a beginning, and then a block so many times."""

    first: bytes
    block: bytes = b""
    times: int = _ENDLESS


def whole(body: bytes, kind: str = "text/plain") -> Script:
    """An ordinary answer."""
    return Script(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def chunked(block: bytes, times: int = _ENDLESS, kind: str = "text/plain") -> Script:
    """An answer whose body comes in chunks; `block` is some of them as they are sent."""
    return Script(
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(), block, times
    )


ANSWERS = {
    "/ok": whole(b"ok"),
    "/chunks": chunked(b"1\r\nx\r\n" * 20_000),
}
SILENT = Script(b"")
"""The answer on every other path: the request is read, and nothing said."""


class Exchange(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._script = SILENT
        self._left = 0
        self._paused = self._pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.close()

    def on_url(self, part: bytes) -> None:
        self._path += part.decode("latin-1")

    def on_message_complete(self) -> None:
        self._script = ANSWERS.get(self._path.split("?")[0], SILENT)
        self._path = ""
        self._transport.write(self._script.first)
        self._left = self._script.times if self._script.block else 0
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        # One block for each turn of the loop: the other connections of this service go on meanwhile.
        if not self._pumping and self._left and not self._paused and not self._transport.is_closing():
            self._left -= 1
            self._transport.write(self._script.block)
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump()


async def serve(port: int, h2c_port: int) -> None:
    """Serve both protocols until killed."""
    loop = asyncio.get_running_loop()
    first = await loop.create_server(Exchange, HOST, port, backlog=1024)
    await loop.create_server(h2c_service.Exchange, HOST, h2c_port, backlog=1024)
    await first.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
