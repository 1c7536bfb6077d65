"""Upstreams: a recorder that answers every request, and endpoints whose connections a test accepts one by one."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from edgeproxy.base.tasks import Tasks
from loadtest.testbed.ports import HOST
from tests.contract.case import Seen, lines
from tests.support.wire import PATIENCE, Cut, Message, Wire

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

STAMPS = (
    *("X-Request-Id", "traceparent", "X-Edge-Region", "X-Customer-Id", "X-Customer-Tier", "X-Edge-Signature", "Via"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Host", "Content-Length", "Transfer-Encoding"),
)
"""Fields that an upstream may receive once at most."""


class Endpoint:
    """A listening socket behind the edge, for one case."""

    def __init__(self) -> None:
        self._listening = socket.create_server((HOST, 0), backlog=128)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]

    async def accepts(self) -> Wire:
        """Wait for the next connection that the edge opens, for PATIENCE seconds at most."""
        async with asyncio.timeout(PATIENCE):
            return await self.accepts_sometime()

    async def accepts_sometime(self) -> Wire:
        """Wait for the next connection without a deadline."""
        end, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        return Wire(end)

    def is_asked(self) -> bool:
        """Return whether a connection waits to be accepted. Close it if one does."""
        try:
            end, _ = self._listening.accept()
        except OSError:
            return False
        end.close()
        return True

    def closes(self) -> None:
        """Stop listening."""
        self._listening.close()


class Recorder:
    """Answers every request with 200, over any number of connections, and records the requests."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.requests: list[Message] = []
        """The complete requests, in the order of their ends."""
        self.unfinished: list[bytes] = []
        """The bytes of requests whose connection ended before they were complete."""
        self.odd: list[str] = []
        """Errors of the strict reader. The edge must never cause one."""
        self.within = 0
        """The number of connections with an incomplete request."""
        self._tasks = Tasks()
        self._wires: set[Wire] = set()

    def begins(self) -> None:
        """Start to accept connections."""
        self._tasks.start("upstream", self._accept())

    async def ends(self) -> None:
        """Stop accepting connections and close the open ones."""
        await self._tasks.cancel()
        await asyncio.sleep(0)  # the loop finishes the cancelled waits
        for wire in self._wires:
            wire.closes()
        self._wires.clear()

    def forgets(self) -> None:
        """Clear the records."""
        self.requests.clear()
        self.unfinished.clear()
        self.odd.clear()

    async def _accept(self) -> None:
        while True:
            self._tasks.start("upstream connection", self._serve(await self.endpoint.accepts_sometime()))

    async def _serve(self, wire: Wire) -> None:
        self._wires.add(wire)
        try:
            while await wire.has_more():
                self.within += 1
                try:
                    request = await wire.gets_request()
                finally:
                    self.within -= 1
                self.requests.append(request)
                await wire.sends(lines("HTTP/1.1 200 OK", "Content-Length: 0"))
        except (ConnectionError, Cut, TimeoutError):
            self.unfinished.append(wire.has())
        except AssertionError as unreadable:
            self.odd.append(f"{unreadable} before {wire.has()!r}")
        self._wires.discard(wire)
        wire.closes()


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run the coroutine during the block, and cancel it at the end of the block."""
    tasks = Tasks()
    try:
        yield tasks.start("meanwhile", work)
    finally:
        await tasks.cancel()
        await asyncio.sleep(0)  # the loop finishes the cancelled waits


def check_seen(request: Message, seen: Seen) -> None:
    """Check a request against a row."""
    assert request.first == seen.line
    assert request.body == seen.body
    check_fields(request, seen.has, seen.lacks)
    for name in STAMPS:
        assert len(request.all(name)) <= 1, f"{name} in {request.raw!r}"
    if not any(line.startswith("X-Request-Id:") for line in seen.has):
        assert UUID7.fullmatch(request["X-Request-Id"]), request.raw
    assert tuple(f"{name}: {value}" for name, value in request.trailers) == seen.trailers


def check_fields(message: Message, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    """Check that the message has these field lines, each name once, and no field of the names in `lacks`."""
    for line in has:
        name, _, value = line.partition(":")
        assert message.all(name) == [value.strip(" \t")], f"{name} in {message.raw!r}"
    for name in lacks:
        assert name not in message, f"{name} in {message.raw!r}"
