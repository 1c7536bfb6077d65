"""The upstream: receive forwarded requests, send the planned replies, and watch each connection.

It reports a fault at once if its own side shows it: invalid bytes, a request on a connection that must not be used
again, or a request that no client sent. The oracle finds the faults that only both sides together show.
"""

import asyncio
import itertools
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

from loadtest.testbed.ports import HOST
from tests.fuzz.conversation import ANSWER, POISON, TOKEN, Reply
from tests.fuzz.messages import Framing, Message, State, may_be_whole, read_request
from tests.fuzz.record import KEPT, Copy, Talk
from tests.fuzz.second import of_forwarded

READ = 1 << 18
RESET = struct.pack("ii", 1, 0)
RACE = 0.2
"""Seconds until the edge must know that the upstream has spoilt or closed an idle connection."""
LATE = 0.002
PLAIN = Reply(
    "plain", sound=True, data=b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\nX-Answer: %b\r\n\r\n%b" % (ANSWER, ANSWER)
)
"""The reply to a request whose token was spoilt."""


class Connection:
    """A connection from the edge."""

    def __init__(self, upstream: "Upstream", end: socket.socket, number: int) -> None:
        self.number = number
        self.events: deque[tuple[str, bytes, int]] = deque(maxlen=60)
        self.talks: deque[Talk] = deque(maxlen=12)
        """The conversations whose requests came over this connection."""
        self._upstream = upstream
        self._socket = end
        self._held = bytearray()
        self._looked_at = 0
        self._spoilt_at = 0.0
        """The time of unrequested bytes on an idle connection, or 0."""
        self._closing_at = 0.0
        self._last: Copy | None = None

    def event(self, what: str, data: bytes = b"") -> None:
        """Record an event here and in the conversation that is served."""
        self.events.append((what, data[:KEPT], len(data)))
        if self.talks:
            self.talks[-1].event(f"upstream connection {self.number} {what}", data)

    async def serve(self) -> None:
        """Serve one request after another until either side ends the connection."""
        try:
            while self._held or await self._recv():
                copy = Copy(self, self._upstream.serial(b"r"))
                try:
                    going_on = await self._exchange(copy)
                finally:
                    copy.done = True
                    self._upstream.over(copy)
                if not going_on:
                    break
        except ConnectionError as error:
            self.event(f"gets {type(error).__name__}")
        finally:
            self._socket.close()

    def _watch_over_reuse(self, message: Message) -> bool:
        """Report a request on a connection that must not be used again. Return True if the edge could not have known.

        The request id carries the edge's time. The time of reading is too late, because bytes may wait in the socket.
        """
        last = self._last
        if last is None:
            return False
        _, final = last.reading()
        late = self._spoilt_at or self._closing_at
        if final is None or not final.whole:
            self._report("a request came before the answer to the one before was whole")
        elif final.closes or final.status == 101 or final.framing is Framing.UNTIL_CLOSE:
            self._report("a connection was used again that was to be closed")
        elif late:
            if began(message) - late > RACE:
                self._report("a request came to a connection that was spoilt or closed long before")
            return True
        elif final.end < len(last.sent):
            self._report("a connection was used again after bytes behind an answer")
        return False

    def _report(self, what: str) -> None:
        self._upstream.report(what, self.talks[-1] if self.talks else None, self)

    async def _exchange(self, copy: Copy) -> bool:
        """Serve one request. Return whether the connection goes on."""
        while not self._read(copy).headed and copy.message.state is State.PARTIAL:
            if not await self._recv():
                copy.ended = "edge"
                return False
        if not self._accept(copy):
            return False
        copy.raced = self._watch_over_reuse(copy.message)
        self._last = copy
        reply = copy.reply
        assert reply is not None
        if copy.raced:
            return False
        if reply.lost and sum(other.reply is reply for other in self.talks[-1].copies) <= reply.lost:
            copy.ended = "rst" if reply.end == "rst" else "fin"
            self.event("closes without an answer")
            return False
        try:
            if reply.wait:
                await asyncio.sleep(reply.wait)
            await self._send(copy, reply.first.replace(ANSWER, copy.serial))
            if reply.early:
                await self._answer(copy, reply)
            if not await self._take_rest(copy):
                return False
            if not reply.early:
                await self._answer(copy, reply)
        except ConnectionError:
            copy.ended = copy.ended or "edge"
            raise
        if copy.ended == "rst":
            return False
        self._held = self._held[copy.message.end :]
        _, final = copy.reading()
        if final is not None and final.status == 101 and final.whole:
            return await self._tunnel(copy, echo=reply.kind == "switch" and copy.message.upgrades)
        if reply.late and final is not None and final.whole and not copy.ended:
            copy.done = True
            self._upstream.over(copy)
            await asyncio.sleep(LATE)
            self._spoilt_at = time.time()
            await self._send(copy, reply.late.replace(POISON, self._upstream.serial(b"p")))
        return True

    async def _take_rest(self, copy: Copy) -> bool:
        """Read the rest of the request. Return False if the connection ended before it, or must end now."""
        while not self._read(copy).whole:
            if copy.message.state is State.INVALID:
                self._report(f"a request was forwarded that is none: {copy.message.why}")
                return False
            if copy.ended == "rst":
                return False
            if not await self._recv():
                copy.message = read_request(bytes(self._held)) or copy.message
                copy.raw = bytes(self._held)
                copy.ended = copy.ended or "edge"
                return False
        if against := of_forwarded(copy.raw, copy.message):
            self._report(f"a request was forwarded of which {against}")
            return False
        return True

    def _read(self, copy: Copy) -> Message:
        """Parse the bytes of the request that have arrived."""
        before, self._looked_at = self._looked_at, len(self._held)
        if copy.raw and not may_be_whole(copy.message, self._held, before):
            return copy.message
        data = bytes(self._held)
        copy.message = read_request(data) or Message(0)
        copy.raw = data[: copy.message.end]
        return copy.message

    def _accept(self, copy: Copy) -> bool:
        """Find the conversation of a request and its reply. Return False if the edge must not send this request."""
        message = copy.message
        if message.at or (message.state is State.INVALID and not message.headed):
            self._report(f"a request was forwarded that is none: {message.why}: {copy.raw[:300]!r}")
            return False
        sources = message.all(b"x-forwarded-for")
        talk = self._upstream.find(sources[0].decode("latin-1")) if len(sources) == 1 else None
        if talk is None:
            self._report(f"a request was forwarded that is nobody's: {sources}: {copy.raw[:300]!r}")
            return False
        self.talks.append(talk)
        talk.copies.append(copy)
        self.event("<-", copy.raw)
        mark = TOKEN.search(message.target)
        copy.reply = talk.conversation.replies.get(mark[0], PLAIN) if mark else PLAIN
        return True

    async def _answer(self, copy: Copy, reply: Reply) -> None:
        """Send the reply in pieces, then end the connection as the reply says."""
        data = reply.data.replace(POISON, self._upstream.serial(b"p")).replace(ANSWER, copy.serial)
        start = 0
        for place, wait in (*reply.cuts, (len(data), 0.0)):
            if start:
                await asyncio.sleep(wait)
                _, final = copy.reading()
                if final is not None and final.whole and final.status != 101:
                    self._spoilt_at = time.time()
            await self._send(copy, data[start:place])
            start = place
        match reply.end:
            case "fin":
                copy.ended = "fin"
                self._closing_at = time.time()
                self._end()
            case "rst":
                copy.ended = "rst"
                self.event("resets")
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async def _send(self, copy: Copy, data: bytes) -> None:
        if data:
            copy.sent += data  # Recorded first, because the edge may answer the client at once.
            self.event("->", data)
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _tunnel(self, copy: Copy, *, echo: bool) -> bool:
        """Echo the bytes of the tunnel until the edge closes it."""
        while True:
            data = bytes(self._held)
            self._held.clear()
            copy.tunnelled += data
            if echo:
                await self._send(copy, data)
            if not await self._recv():
                break
        copy.ended = "fin"
        self._end()
        return False

    def _end(self) -> None:
        """Close this side of the connection."""
        self.event("ends its side")
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # The edge has reset it.
            pass

    async def _recv(self) -> bool:
        data = await asyncio.get_running_loop().sock_recv(self._socket, READ)
        self._held += data
        return bool(data)


def began(request: Message) -> float:
    """Return the edge's start time of a request in Unix seconds, from the UUID of version 7 in its id (RFC 9562)."""
    (rid,) = request.all(b"x-request-id")
    return int(rid.replace(b"-", b"")[:12], 16) / 1000


class Upstream:
    """All endpoints. The last one belongs to a service with few requests.

    `find` returns a conversation by the client's address. `report` receives each fault.
    """

    ENDPOINTS = 3

    def __init__(
        self, find: Callable[[str], Talk | None], report: Callable[[str, Talk | None, Connection | None], None]
    ) -> None:
        self.find = find
        self.report = report
        self.over: Callable[[Copy], None] = lambda copy: None
        self._serials = itertools.count(1)
        self._numbers = itertools.count(1)
        self._listening = [socket.create_server((HOST, 0), backlog=1024) for _ in range(self.ENDPOINTS)]
        for each in self._listening:
            each.setblocking(False)
        self.ports = [each.getsockname()[1] for each in self._listening]

    def serial(self, kind: bytes) -> bytes:
        """Return a new serial."""
        return b"%b%014xz" % (kind, next(self._serials))

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            for each in self._listening:
                group.create_task(self._accept(each, group))

    async def _accept(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        with listening:
            while True:
                end, _ = await asyncio.get_running_loop().sock_accept(listening)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                group.create_task(Connection(self, end, next(self._numbers)).serve())
