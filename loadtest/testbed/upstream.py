"""An upstream that answers as the request says, counts all requests, and outlives the edge.

It runs as a process of its own (`python -m loadtest.testbed.upstream`). It parses with llhttp, not with the edge's
parser, so forwarded requests are checked independently. A request's query controls its answer:

    status=503    with this status            wait=20       after this many milliseconds
    size=1000     with this many bytes        chunked=1     in chunks
    echo=1        with the received request, as JSON
    held=1        once the test releases it

Paths under /-/ are for the tests themselves, which call them directly. They are not counted.
"""

import asyncio
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httptools
import orjson
import uvloop

from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until

OWN = "/-/"
RELEASE = "/-/release"
SINGLE = (b"x-request-id", b"host", b"content-length", b"transfer-encoding", b"x-customer-id")
"""Fields that a request may have once at most. The first two are required."""


FILL = (bytes(range(256)) * 4)[:1016]


class Log:
    """The received requests and the answers, by the customer's stamp (`-` without one)."""

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.billable: Counter[str] = Counter()
        """Answers below 500. They are counted before they are written, so clients never have more."""
        self.paths: Counter[str] = Counter()
        self.odd: list[str] = []
        """Requests that the edge must never forward, and why."""
        self.requests: Counter[str] = Counter()
        """How often each request id was seen."""
        self.held: list[Callable[[], None]] = []
        """Functions that send the held answers."""

    def release(self) -> None:
        """Send all held answers."""
        held, self.held = self.held, []
        for answer in held:
            answer()

    def shown(self) -> dict[str, Any]:
        twice = {rid: count for rid, count in self.requests.items() if count > 1}
        return {
            "received": self.received,
            "billable": self.billable,
            "paths": self.paths,
            "odd": self.odd,
            "twice": twice,
        }


class Connection(asyncio.Protocol):
    """One connection of the edge, with one request after another."""

    transport: asyncio.Transport

    def __init__(self, log: Log) -> None:
        self._log = log
        self._parser = httptools.HttpRequestParser(self)
        self._busy = False
        self._clear()

    def _clear(self) -> None:
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body = hashlib.sha256()
        self._length = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as asked:
            # This service switches to nothing: what follows the request is the next one.
            self._parser = httptools.HttpRequestParser(self)
            if rest := data[asked.args[0] :]:
                self.data_received(rest)
        except httptools.HttpParserError as unreadable:
            self._log.odd.append(f"unreadable: {unreadable!r}, {data[:200]!r}")
            self.transport.abort()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if any(name.lower() == b"expect" for name, _ in self._fields):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._body.update(part)
        self._length += len(part)

    def on_message_complete(self) -> None:
        self._method, self._version = self._parser.get_method(), self._parser.get_http_version()
        path = urlsplit(self._target).path.decode("latin-1")
        query = dict(parse_qsl(urlsplit(self._target).query.decode("latin-1")))
        if path.startswith(OWN):
            if path == RELEASE:
                self._log.release()
            self._answer(200, orjson.dumps(self._log.shown()))
        else:
            self._serve(path, query)
        self._clear()

    def _serve(self, path: str, query: dict[str, str]) -> None:
        log = self._log
        names = Counter(name.lower() for name, _ in self._fields)
        for name in SINGLE:
            if names[name] > 1 or (name in SINGLE[:2] and not names[name]):
                log.odd.append(f"{names[name]} times {name.decode()}: {self._target!r} {self._fields!r}")
        if self._busy:
            log.odd.append(f"a request before the answer to the last one: {self._target!r}")
        fields = {name.lower(): value for name, value in self._fields}
        customer = fields.get(b"x-customer-id", b"-").decode("latin-1")
        log.received[customer] += 1
        log.paths[path] += 1
        log.requests[fields.get(b"x-request-id", b"").decode("latin-1")] += 1
        status = int(query.get("status", 200))
        body = self._echo() if "echo" in query else content(int(query.get("size", 2)))

        def answer() -> None:
            self._busy = False
            if status < 500:
                log.billable[customer] += 1
            self._answer(status, body, chunked="chunked" in query)

        if "held" in query:
            self._busy = True
            self._log.held.append(answer)
        elif "wait" in query:
            self._busy = True
            asyncio.get_running_loop().call_later(int(query["wait"]) / 1000, answer)
        else:
            answer()

    def _echo(self) -> bytes:
        fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self._fields]
        return orjson.dumps(
            {
                "method": self._method.decode(),
                "version": self._version,
                "target": self._target.decode("latin-1"),
                "fields": fields,
                "length": self._length,
                "sha256": self._body.hexdigest(),
            }
        )

    def _answer(self, status: int, body: bytes, *, chunked: bool = False) -> None:
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
        bodiless = status in (204, 304)
        head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, HTTPStatus(status).phrase.encode(), framing * (not bodiless))
        if bodiless or self._method == b"HEAD":
            self.transport.write(head)
        elif chunked:
            self.transport.writelines([head, *chunks(body), b"0\r\n\r\n"])
        else:
            self.transport.write(head + body)


def content(size: int) -> bytes:
    """Return the bytes of an answer of this size. No two KiB of it are equal."""
    return b"".join(b"%07d %b" % (number, FILL) for number in range(size // 1024 + 1))[:size]


def chunks(body: bytes) -> list[bytes]:
    """Return the body in chunks of some 50,000 bytes."""
    parts = [body[at : at + 50_001] for at in range(0, len(body), 50_001)]
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]


async def serve(told: Path) -> None:
    """Listen on a free port and write its number to `told`; runs until killed or terminated."""
    log = Log()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(log), HOST, 0, backlog=4096)
    fresh = told.with_suffix(".new")
    fresh.write_text(str(server.sockets[0].getsockname()[1]))
    fresh.rename(told)
    await server.serve_forever()


class Upstream(Process):
    """The running process, and its counts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        told = folder / "port"
        super().__init__([sys.executable, "-m", "loadtest.testbed.upstream", told], folder / "log")
        until(lambda: told.exists() or not self.running, "the upstream listens")
        assert self.running, self.output
        self.port = int(told.read_text())

    def seen(self) -> dict[str, Any]:
        """Return `received` and `billable` by customer, `paths`, `odd` requests, and request ids seen `twice`."""
        body: dict[str, Any] = ask(self.port, "/-/seen").json()
        return body

    def release(self) -> None:
        """Send the answers to all held requests."""
        ask(self.port, RELEASE)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
