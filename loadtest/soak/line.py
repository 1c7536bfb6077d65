"""A client's connection with hand-written HTTP/1.1, so that each kind of failure has its own name."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence

from loadtest.soak.account import How
from loadtest.testbed.frames import CLOSE, Frame, read
from loadtest.testbed.ports import HOST

LIMIT = 1 << 20
"""Bytes that are read ahead."""


class Broken(Exception):
    """The connection failed."""

    def __init__(self, how: How, detail: object = "", *, port: int = 0) -> None:
        super().__init__(how, detail)
        self.how = how
        self.port = port
        """The client's own port, if the connection failed."""
        self.detail = str(detail) or type(detail).__name__


class Head:
    """The head of an answer."""

    def __init__(self, block: bytes) -> None:
        first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.status = int(first[9:12])
        self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def endpoint(self) -> str:
        """The name of the answering endpoint; empty if the edge itself answered."""
        return self.fields.get("x-endpoint", "")

    @property
    def last(self) -> bool:
        """The connection accepts no further request."""
        return self.fields.get("connection", "").lower() == "close"


class Line:
    """One connection. Created by `open`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]
        self.requests = 0
        self.idle_since = 0.0
        """When the last answer ended, in seconds of the monotonic clock; 0 before the first one."""
        self._frames = b""

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None) -> "Line":
        """Connect; raises Broken."""
        raw, own = socket.socket(), 0
        raw.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(raw, (HOST, port))
            own = raw.getsockname()[1]
            name = None if tls is None else HOST
            return cls(*await asyncio.open_connection(sock=raw, ssl=tls, server_hostname=name, limit=LIMIT))
        except OSError as failure:
            raw.close()
            how: How = "refused" if isinstance(failure, ConnectionRefusedError) else "unconnected"
            raise Broken(how, failure, port=own) from failure

    @property
    def usable(self) -> bool:
        """Return whether another request may be sent, because neither side has ended the connection."""
        return not self._reader.at_eof() and self._reader.exception() is None and not self._writer.is_closing()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def send(self, *pieces: bytes, pause: float = 0) -> None:
        """Write these pieces, with a pause after each. `head` reports failures."""
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
                if pause:
                    await asyncio.sleep(pause)
        except OSError:
            pass

    async def head(self) -> Head:
        """Read the head of the next answer; raises Broken."""
        self.requests += 1
        try:
            return Head(await self._reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError as end:
            raise Broken("closed", f"after {len(end.partial)} bytes") from end
        except OSError as failure:
            raise Broken("reset", failure) from failure

    async def body(self, head: Head) -> bytes:
        """Read the whole body; raises Broken."""
        return b"".join([piece async for piece in self.pieces(head)])

    async def pieces(self, head: Head) -> AsyncIterator[bytes]:
        """Yield the body in pieces; raises Broken."""
        try:
            if head.status in (204, 304):
                return
            if "content-length" in head.fields:
                left = int(head.fields["content-length"])
                while left:
                    piece = await self._reader.read(min(left, LIMIT))
                    if not piece:
                        raise Broken("cut", f"{left} bytes before its end")
                    left -= len(piece)
                    yield piece
                return
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        except (OSError, asyncio.IncompleteReadError) as end:
            raise Broken("cut", end) from end

    async def frame(self) -> Frame:
        """Read the next frame of a WebSocket; raises Broken."""
        while True:
            for frame, end in read(self._frames):
                self._frames = self._frames[end:]
                return frame
            try:
                data = await self._reader.read(1 << 16)
            except OSError as failure:
                raise Broken("cut", failure) from failure
            if not data:
                raise Broken("cut", "no close frame")
            self._frames += data

    async def ended(self) -> None:
        """Wait for the other side's end after a close frame."""
        try:
            await self._reader.read()
        except OSError as failure:
            raise Broken("cut", failure) from failure


def request(method: str, target: str, key: str, fields: Sequence[str] = ()) -> bytes:
    """Return the bytes of a request's head."""
    lines = [f"{method} {target} HTTP/1.1", "Host: soak.test", f"X-API-Key: {key}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def says(frame: Frame) -> int:
    """Return the code of a close frame; 0 for any other frame."""
    return int.from_bytes(frame.payload[:2], "big") if frame.opcode == CLOSE else 0
