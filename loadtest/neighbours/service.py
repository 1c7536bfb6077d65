"""The services behind the peers, each path with an answer of its own.

`python -m loadtest.neighbours.service PORT H2C INTERIM SILENT`: the ports for HTTP/1.1 and HTTP/2, for a service that
answers anything with interim answers without end, and for one that never says anything. The process runs twice: once
for the well-behaved client, once for its neighbours.
"""

import asyncio
import json
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


def chunked(block: bytes, kind: str = "text/plain") -> Script:
    """An answer whose body comes in chunks without end; `block` is a piece of it with its chunk heads."""
    return Script(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode(), block)


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_EVENT = b'data: {"model": "m", "choices": [{"delta": {"content": "x"}}], "usage": null}\n\n'
_JSON = {"model": "m", "choices": [{"logprobs": [[number, {"token": "x"}] for number in range(200_000)]}]}
_TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(2000))
SILENT = Script(b"")
"""The answer on every other path: the request is read, and nothing said."""
ANSWERS = {
    "/ok": whole(b"ok"),
    "/small": whole(b"ok"),
    "/keyed": whole(b"ok"),
    "/spent": whole(b"ok"),
    "/chunks": chunked(b"1\r\nx\r\n" * 20_000),
    "/interim": Script(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000),
    "/text": chunked(chunk(_TEXT)),
    "/ws": Script(_SWITCH),
    "/ws-down": Script(_SWITCH, b"\x82\x01x" * 20_000),
    "/ai/events": chunked(chunk(_EVENT) * 500, "text/event-stream"),
    "/ai/json": whole(json.dumps(_JSON | {"usage": {"prompt_tokens": 1}}).encode(), "application/json"),
}


class Flow(asyncio.Protocol):
    """A connection that can be sent a block again and again, one in each turn of the loop, while the peer takes it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._block, self._left = b"", 0
        self._paused = self._pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def play(self, script: Script) -> None:
        """Begin to send an answer."""
        if script.first:
            self.transport.write(script.first)
        self._block, self._left = script.block, script.times if script.block else 0
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        if not self._pumping and self._left and not self._paused and not self.transport.is_closing():
            self._left -= 1
            self.transport.write(self._block)
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump()


class Exchange(Flow):
    """One connection of a proxy."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""
        self._body: list[bytes] = []
        self._switched = False

    def data_received(self, data: bytes) -> None:
        if self._switched:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._switched = True
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, part: bytes) -> None:
        self._path += part.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        if self._path == "/ai/echo":
            self._body.append(part)

    def on_message_complete(self) -> None:
        path, self._path = self._path.split("?")[0], ""
        if path == "/ai/echo":
            # As many gateways do, it states the model that it was asked for.
            answer = {"model": json.loads(b"".join(self._body))["model"], "usage": {"prompt_tokens": 1}}
            self._body.clear()
            self.play(whole(json.dumps(answer).encode(), "application/json"))
        else:
            self.play(ANSWERS.get(path, SILENT))


class Interim(Flow):
    """A service that answers with interim answers without end."""

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self.play(ANSWERS["/interim"])


async def serve(ports: list[int]) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    for protocol, port in zip((Exchange, h2c_service.Exchange, Interim, asyncio.Protocol), ports, strict=True):
        await loop.create_server(protocol, HOST, port, backlog=4096)
    await loop.create_future()


if __name__ == "__main__":
    uvloop.run(serve(list(map(int, sys.argv[1:]))))
