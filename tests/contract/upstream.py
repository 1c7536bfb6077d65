"""Upstreams: one that answers every request and remembers it, and ones whose connections a case takes one by one."""

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
"""What no upstream may see twice."""


class Endpoint:
    """A listening socket behind the edge, for one case."""

    def __init__(self) -> None:
        self._listening = socket.create_server((HOST, 0), backlog=128)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]

    async def accepts(self) -> Wire:
        """The next connection that the edge opens."""
        async with asyncio.timeout(PATIENCE):
            return await self.accepts_sometime()

    async def accepts_sometime(self) -> Wire:
        """`accepts`, for as long as it takes."""
        end, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        return Wire(end)

    def is_asked(self) -> bool:
        """Whether a connection waits that nobody accepted; it is then closed."""
        try:
            end, _ = self._listening.accept()
        except OSError:
            return False
        end.close()
        return True

    def closes(self) -> None:
        """Be there no longer."""
        self._listening.close()


class Recorder:
    """Answers every request with 200, over as many connections as the edge opens, and keeps what it was sent."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.requests: list[Message] = []
        """Every whole request, in the order of their ends."""
        self.unfinished: list[bytes] = []
        """What began as a request, and whose connection ended within it."""
        self.odd: list[str] = []
        """What no strict reader could read, which is never right."""
        self.within = 0
        """Connections on which a request has begun and not ended."""
        self._tasks = Tasks()
        self._wires: set[Wire] = set()

    def begins(self) -> None:
        """Take connections from now on."""
        self._tasks.start("upstream", self._accept())

    async def ends(self) -> None:
        """Take no more, and close those that there are."""
        await self._tasks.cancel()
        await asyncio.sleep(0)  # for what the loop still has to do for waits that were cut short
        for wire in self._wires:
            wire.closes()
        self._wires.clear()

    def forgets(self) -> None:
        """Remember nothing of what came until now."""
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
    """Do this beside what stands in the block; what is not done at its end is cancelled."""
    tasks = Tasks()
    try:
        yield tasks.start("meanwhile", work)
    finally:
        await tasks.cancel()
        await asyncio.sleep(0)  # for what the loop still has to do for waits that were cut short


def check_seen(request: Message, seen: Seen) -> None:
    """This request is what the row says."""
    assert request.first == seen.line
    assert request.body == seen.body
    check_fields(request, seen.has, seen.lacks)
    for name in STAMPS:
        assert len(request.all(name)) <= 1, f"{name} in {request.raw!r}"
    if not any(line.startswith("X-Request-Id:") for line in seen.has):
        assert UUID7.fullmatch(request["X-Request-Id"]), request.raw
    assert tuple(f"{name}: {value}" for name, value in request.trailers) == seen.trailers


def check_fields(message: Message, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    """The message has these field lines, each once under its name, and none of these names."""
    for line in has:
        name, _, value = line.partition(":")
        assert message.all(name) == [value.strip(" \t")], f"{name} in {message.raw!r}"
    for name in lacks:
        assert name not in message, f"{name} in {message.raw!r}"
