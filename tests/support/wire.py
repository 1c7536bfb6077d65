"""A TCP connection controlled by a test: it sends exactly the given bytes and returns exactly the received ones.

Each wait lasts at most PATIENCE seconds. Bytes are read only when a test asks for them, so a test decides when a
peer is slow. Messages are parsed strictly, by other code than the edge's.
"""

import asyncio
import re
import socket
import struct

PATIENCE = 15.0
"""Seconds until a wait fails."""

READ = 1 << 18
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: closing sends a reset."""

CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


class Cut(AssertionError):
    """The connection ended within a message."""


class Message:
    """A received request or response: its first line, its fields in order, and its body once that was read."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        self.raw = head
        self.first = first.decode("latin-1")
        self.fields = [_field(line) for line in lines]
        self.body = b""
        self.pieces: list[bytes] = []
        """The payload of each chunk, if the body was chunked."""
        self.trailers: list[tuple[str, str]] = []

    @property
    def status(self) -> int:
        """The status of a response."""
        version, status, _ = self.first.split(" ", 2)
        assert version == "HTTP/1.1", self.first
        return int(status)

    def all(self, name: str) -> list[str]:
        """Return every value of a field, in order; `name` in any case."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, f"{name} is there {len(values)} times in {self.raw!r}"
        return values[0]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __repr__(self) -> str:
        return f"{self.raw!r} + {len(self.body)} bytes"


class Wire:
    """A connection. Its verbs are a transcript's: each says an action of this side."""

    is_http2 = False
    """The object is an HTTP/2 stream with the interface of a Wire (tests/contract/stream_wire.py)."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._end = end
        self._held = bytearray()
        """Received bytes that the test has not read."""
        self._begun = b""
        """The rest of a piece that the kernel accepted only in part."""
        self.open = True

    # ---- actions of this side

    async def sends(self, *parts: bytes) -> None:
        """Send all of this, in one write if it fits."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self._end, b"".join(parts))

    async def sends_within(self, data: bytes, seconds: float) -> bool:
        """Return whether the kernel accepts all of this within these seconds. If not, the accepted part is unknown."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_sendall(self._end, data)
        except TimeoutError:
            return False
        return True

    def sends_now(self, data: bytes) -> None:
        """Send a few bytes before the loop continues."""
        assert self._end.send(data) == len(data)

    def tries(self, data: bytes) -> None:
        """Send a few bytes; a closed connection is no error."""
        try:
            self.sends_now(data)
        except ConnectionError:
            pass

    async def sends_while_taken(self, piece: bytes, most: int) -> int:
        """Send `piece` repeatedly until the receiver stops reading, or `most` bytes are sent. Returns the number of
        bytes.

        A further call continues where the last piece was cut.
        """
        sent = idle = 0
        self._begun = self._begun or piece
        while sent < most and idle < 200:
            try:
                taken = self._end.send(self._begun)
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0)
                continue
            sent += taken
            idle = 0
            self._begun = self._begun[taken:] or piece
        return sent

    def sends_eof(self) -> None:
        """Close this side's direction."""
        self._end.shutdown(socket.SHUT_WR)

    def closes(self) -> None:
        """Close the connection."""
        if self.open:
            self.open = False
            self._end.close()

    def aborts(self) -> None:
        """Reset the connection."""
        if self.open:
            self._end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.closes()

    # ---- what this side gets

    async def gets_bytes(self, n: int) -> bytes:
        """Return the next `n` bytes."""
        while len(self._held) < n:
            await self._read_on()
        return self._take(n)

    async def gets(self, expected: bytes) -> None:
        """Require that the next bytes are these."""
        got = await self.gets_bytes(len(expected))
        assert got == expected

    async def gets_until(self, end: bytes) -> bytes:
        """Return the bytes up to and including the next `end`."""
        while (at := self._held.find(end)) < 0:
            await self._read_on()
        return self._take(at + len(end))

    async def gets_head(self) -> Message:
        """Return the head of a message; its body is still to be read."""
        return Message(await self.gets_until(b"\r\n\r\n"))

    async def gets_request(self) -> Message:
        """Return a whole request."""
        request = await self.gets_head()
        if "Transfer-Encoding" in request:
            await self.gets_chunks(request)
        elif "Content-Length" in request:
            request.body = await self.gets_bytes(int(request["Content-Length"]))
        return request

    async def gets_answer(self, to: str = "GET") -> Message:
        """Return a whole response to a request with the method `to`."""
        answer = await self.gets_head()
        if to == "HEAD" or answer.status < 200 or answer.status in (204, 304):
            pass
        elif "Transfer-Encoding" in answer:
            assert "Content-Length" not in answer
            await self.gets_chunks(answer)
        elif "Content-Length" in answer:
            answer.body = await self.gets_bytes(int(answer["Content-Length"]))
        else:
            answer.body = await self.gets_rest()
        return answer

    async def asks(self, *request: bytes, to: str = "GET") -> Message:
        """Send this request and return the response."""
        await self.sends(*request)
        return await self.gets_answer(to)

    async def tells(self, client: "Wire", *answer: bytes, to: str = "GET") -> Message:
        """Send this, and return the response that a client on the other side of the edge then gets."""
        await self.sends(*answer)
        return await client.gets_answer(to)

    async def serves(self, client: "Wire", *answer: bytes, to: str = "GET") -> Message:
        """Like `tells`, but first receive a whole request."""
        await self.gets_request()
        return await self.tells(client, *answer, to=to)

    async def reaches(self, other: "Wire", data: bytes) -> None:
        """Send this, and require that the other side of the edge receives it unchanged."""
        await self.sends(data)
        await other.gets(data)

    async def gets_chunks(self, message: Message) -> None:
        """Receive the rest of a chunked body into `message`, strictly by RFC 9112 section 7.1, without extensions."""
        assert message["Transfer-Encoding"] == "chunked"
        while True:
            line = await self.gets_until(b"\r\n")
            match = CHUNK.fullmatch(line)
            assert match is not None, line
            n = int(match[1], 16)
            if not n:
                break
            message.pieces.append(await self.gets_bytes(n))
            await self.gets(b"\r\n")
        while (line := await self.gets_until(b"\r\n")) != b"\r\n":
            message.trailers.append(_field(line[:-2]))
        message.body = b"".join(message.pieces)

    async def gets_rest(self) -> bytes:
        """Return all bytes up to the end of the stream, which must end without a reset."""
        while await self._read():
            pass
        return self._take(len(self._held))

    async def gets_eof(self) -> None:
        """Require the end of the stream without further bytes."""
        assert await self.gets_rest() == b""

    async def gets_cut(self) -> bytes:
        """Return the bytes up to the end of the stream or a reset; both are accepted."""
        try:
            while await self._read():
                pass
        except ConnectionError:
            pass
        return self._take(len(self._held))

    async def gets_reset(self) -> bytes:
        """Return the bytes before a reset, and require the reset."""
        try:
            while await self._read():
                pass
        except ConnectionError:
            return self._take(len(self._held))
        raise AssertionError(f"an end of the stream and no reset, after {shown(self._held)}")

    async def has_more(self) -> bool:
        """Wait without limit for a byte (True) or the end of the connection."""
        if self._held:
            return True
        try:
            self._held += await asyncio.get_running_loop().sock_recv(self._end, READ)
        except ConnectionError:
            return False
        return bool(self._held)

    def has(self) -> bytes:
        """Return the bytes that have arrived, without waiting and without consuming them."""
        try:
            self._held += self._end.recv(READ)
        except (BlockingIOError, ConnectionError):
            pass
        return bytes(self._held)

    def takes_all(self) -> int:
        """Drop the bytes that have arrived; return their number."""
        taken = len(self._held)
        self._held.clear()
        try:
            while data := self._end.recv(READ):
                taken += len(data)
        except (BlockingIOError, ConnectionError):
            pass
        return taken

    def at_end(self) -> bool:
        """Return whether the other side has closed its direction and all its bytes were read."""
        try:
            return not self._held and self._end.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def _take(self, n: int) -> bytes:
        taken = bytes(self._held[:n])
        del self._held[:n]
        return taken

    async def _read_on(self) -> None:
        if not await self._read():
            raise Cut(f"the connection ended after {shown(self._held)}")

    async def _read(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self._end, READ)
        self._held += data
        return bool(data)


def shown(data: bytes | bytearray) -> str:
    """Return bytes for a person: their beginning and number."""
    return repr(bytes(data)) if len(data) < 500 else f"{bytes(data[:500])!r}… ({len(data)} bytes)"


def _field(line: bytes) -> tuple[str, str]:
    name, colon, value = line.decode("latin-1").partition(":")
    assert colon, line
    assert name, line
    assert not set(name) & set(" \t\r\n"), line
    assert not set(value) & set("\r\n\0"), line
    return name, value.strip(" \t")  # RFC 9112 section 5.1; other characters that Python strips are part of the value


def narrow(transport: asyncio.Transport) -> None:
    """Shrink the send buffer of the edge's end, so that a test need not send much."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
