"""An endpoint behind the edge: it answers, streams, echoes and accepts uploads, and its counts survive kills.

`python -m loadtest.soak.service NAME PORT TALLY`. It is killed, and started again on its port and tally. A request's
query controls its answer: `size`, `chunked`, `wait` (milliseconds), `status`, `events` (their number).
"""

import asyncio
import sys
import zlib
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httptools
import uvloop

from loadtest.soak.tally import ODD, Tally
from loadtest.testbed.frames import CLOSE, masked
from loadtest.testbed.ports import HOST
from loadtest.testbed.upstream import chunks, content

HEALTH = "/healthz"
EVERY = 0.1
"""Seconds between two events."""


class Connection(asyncio.Protocol):
    """One connection of an edge."""

    transport: asyncio.Transport

    def __init__(self, name: str, tally: Tally) -> None:
        self._own = f"X-Endpoint: {name}\r\n".encode()
        self._tally = tally
        self._parser = httptools.HttpRequestParser(self)
        self._frames: bytearray | None = None
        self._uploaded = b""
        """Length and sum of the last request's body."""
        self._clear()

    def _clear(self) -> None:
        self._target, self._customer = b"", ODD
        self._length = self._sum = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._frames is not None:
            self._echo(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as asked:
            self._echo(data[asked.args[0] :])
        except httptools.HttpParserError:
            self._tally.receive(ODD)
            self.transport.abort()

    # ---- requests

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-customer-id":
            self._customer = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._length += len(part)
        self._sum = zlib.crc32(part, self._sum)

    def on_message_complete(self) -> None:
        split = urlsplit(self._target.decode("latin-1"))
        if split.path == HEALTH:
            self._answer(200, b"well", chunked=False)
        else:
            if split.path.split("/")[1] != self._customer:
                self._customer = ODD
            self._tally.receive(self._customer)
            query = dict(parse_qsl(split.query))
            asyncio.get_running_loop().call_later(int(query.get("wait", 0)) / 1000, self._serve, self._customer, query)
        self._uploaded = b"%d %d" % (self._length, self._sum)
        self._clear()

    def _serve(self, customer: str, query: dict[str, str]) -> None:
        if self.transport.is_closing():
            return
        status = int(query.get("status", 200))
        if status < 500:  # a billed answer
            self._tally.give(customer)
        if self._parser.should_upgrade():
            self._head(101, b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
        elif "events" in query:
            self._head(200, b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")
            self._events(0, int(query["events"]))
        else:
            body = content(int(query["size"])) if "size" in query else self._uploaded
            self._answer(status, body, chunked="chunked" in query)

    # ---- answers

    def _head(self, status: int, fields: bytes) -> None:
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, phrase, fields, self._own))

    def _answer(self, status: int, body: bytes, *, chunked: bool) -> None:
        if status == 204:
            self._head(status, b"")
        elif chunked:
            self._head(status, b"Transfer-Encoding: chunked\r\n")
            self.transport.writelines([*chunks(body), b"0\r\n\r\n"])
        else:
            self._head(status, b"Content-Length: %d\r\n" % len(body))
            self.transport.write(body)

    def _events(self, number: int, count: int) -> None:
        if self.transport.is_closing():
            return
        if number == count:
            self.transport.write(b"0\r\n\r\n")
            return
        event = b"data: %d\n\n" % number
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        asyncio.get_running_loop().call_later(EVERY, self._events, number + 1, count)

    def _echo(self, data: bytes) -> None:
        """Echo a client's frames unmasked; a close frame also ends the connection."""
        if self._frames is None:
            self._frames = bytearray()
        self._frames += data
        while (found := unmasked(self._frames)) is not None:
            frame, end = found
            del self._frames[:end]
            self.transport.write(frame)
            if frame[0] & 15 == CLOSE:
                self.transport.close()


def unmasked(data: bytearray) -> tuple[bytes, int] | None:
    """Return the first whole frame as the server sends it back, and its end; None if it is incomplete."""
    if len(data) < 2:
        return None
    length, start = data[1] & 127, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        length = int.from_bytes(data[2:start], "big")
    end = start + 4 + length
    if len(data) < end:
        return None
    return bytes([data[0], data[1] & 127]) + bytes(data[2:start]) + masked(bytes(data[start + 4 : end])), end


async def serve(name: str, port: int, tally: Tally) -> None:
    """Listen on a port that the tests hold, until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(name, tally), HOST, port, reuse_port=True, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), Tally(Path(sys.argv[3]))))
