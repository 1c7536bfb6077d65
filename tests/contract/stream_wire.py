"""A client of HTTP/2 with the interface of a Wire of HTTP/1.1, so that plays run over both protocols.

It parses the bytes that a play sends and sends them as frames, and formats received frames as HTTP/1.1. Each request
has a stream of its own. The end of a stream counts as the end of a connection, and the reset of a stream as its reset.
"""

import asyncio

from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import StreamClosedError

from tests.support.http2_wire import Http2Wire
from tests.support.wire import PATIENCE, Cut, Message, Wire

DROPPED = frozenset(("connection", "transfer-encoding", "upgrade", "sec-websocket-key", "host"))
EVENTS = (
    *(ResponseReceived, InformationalResponseReceived, DataReceived),
    *(TrailersReceived, StreamEnded, StreamReset),
)
SIZED, CHUNKED, TUNNEL = range(3)


class StreamWire(Wire):
    """A connection whose streams are used one after the other."""

    is_http2 = True

    def __init__(self, http2: Http2Wire) -> None:
        self._http2 = http2
        self._held = bytearray()
        self.open = True
        self._input = b""
        self._mode: int | None = None
        """The kind of the next bytes to send: SIZED, CHUNKED or TUNNEL, or None for a head."""
        self._left = 0
        """The remaining bytes of a body or a chunk, or -1 between two chunks."""
        self._sending = 0
        self._streams: list[int] = []
        """The streams whose answers have not ended, in order."""
        self._tunnel = 0
        self._is_chunked = False

    # ---- sending

    async def sends(self, *parts: bytes) -> None:
        self._input += b"".join(parts)
        try:
            async with asyncio.timeout(PATIENCE):
                while self._input and await self._send_some():
                    pass
        except StreamClosedError as error:
            raise ConnectionResetError("the stream is closed") from error

    async def _send_some(self) -> bool:
        """Send the available bytes of the next part. Return whether there were any."""
        if self._mode is None:
            return await self._send_head()
        if self._mode == CHUNKED and self._left <= 0:
            return await self._begin_chunk()
        size = len(self._input) if self._mode == TUNNEL else min(self._left, len(self._input))
        piece, self._input = self._input[:size], self._input[size:]
        ended = False
        if self._mode != TUNNEL:
            self._left -= size
            ended = self._mode == SIZED and not self._left
        await self._http2.sends_data(self._sending, piece, ended=ended)
        if ended:
            self._mode = None
        elif self._mode == CHUNKED and not self._left:
            self._left = -1
        return True

    async def _send_head(self) -> bool:
        head, blank, rest = self._input.partition(b"\r\n\r\n")
        if not blank:
            return False
        self._input = rest
        request = Message(head + blank)
        method, path, _ = request.first.split(" ")
        fields = [(name.lower(), value) for name, value in request.fields if name.lower() not in DROPPED]
        pseudo = {"authority": request["Host"]}
        length = int("".join(request.all("Content-Length")) or 0)
        if any(value.lower() == "websocket" for value in request.all("Upgrade")):
            method, self._mode = "CONNECT", TUNNEL
            pseudo["protocol"] = "websocket"
        elif "Transfer-Encoding" in request:
            self._mode, self._left = CHUNKED, 0
        elif length:
            self._mode, self._left = SIZED, length
        ended = self._mode is None
        self._sending = await self._http2.begins_request(method, path, *fields, ended=ended, **pseudo)
        self._streams.append(self._sending)
        if self._mode == TUNNEL:
            self._tunnel = self._sending
        return True

    async def _begin_chunk(self) -> bool:
        """Read the end of the previous chunk and the size of the next one. After the last chunk, read the trailers."""
        data = self._input.removeprefix(b"\r\n") if self._left < 0 else self._input
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return False
        self._left = int(line.partition(b";")[0], 16)
        self._input = rest
        if self._left:
            return True
        section, blank, self._input = (b"\r\n" + rest).partition(b"\r\n\r\n")
        assert blank, "trailers come whole in plays"
        trailers = [line.decode().split(": ") for line in section.split(b"\r\n")[1:]]
        if trailers:
            fields = [(name.lower(), value) for name, value in trailers]
            self._http2.protocol.send_headers(self._sending, fields, end_stream=True)
            await self._http2.flushes()
        else:
            await self._http2.sends_data(self._sending, b"", ended=True)
        self._mode = None
        return True

    async def sends_within(self, data: bytes, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.sends(data)
        except (TimeoutError, ConnectionError, Cut):
            return False  # The answer may have come before the end, while this side waited for the window.
        return True

    def sends_eof(self) -> None:
        self._http2.protocol.send_data(self._sending, b"", end_stream=True)
        self._http2.wire.tries(self._http2.protocol.data_to_send())

    # ---- receiving

    async def _read(self) -> bool:
        """Handle the next event of the oldest stream. Return False at its end if there is no other stream."""
        if not self._streams:
            return False
        number = self._streams[0]
        event = await self._http2.next_event(number, *EVENTS)
        if isinstance(event, StreamReset):
            del self._streams[0]
            if event.error_code:
                raise ConnectionResetError(f"stream {number} was reset with {event.error_code}")
            return bool(self._streams)
        if isinstance(event, StreamEnded):
            del self._streams[0]
            if self._is_chunked:
                self._held += b"0\r\n\r\n"
                return True
            return bool(self._streams)
        self._held += self._format(number, event)
        return True

    def _format(self, number: int, event: object) -> bytes:
        if isinstance(event, DataReceived):
            return b"%x\r\n%b\r\n" % (len(event.data), event.data) if self._is_chunked and event.data else event.data
        if isinstance(event, TrailersReceived):
            self._is_chunked = False
            lines = "".join(f"{name}: {value}\r\n" for name, value in event.headers)
            return f"0\r\n{lines}\r\n".encode("latin-1")
        assert isinstance(event, ResponseReceived | InformationalResponseReceived)
        (_, status), *fields = event.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        final = isinstance(event, ResponseReceived)
        switched = final and number == self._tunnel and status == "200"
        if final and number == self._tunnel and not switched:
            self._mode, self._tunnel = None, 0
        self._is_chunked = final and not switched and "content-length: " not in lines and status not in ("204", "304")
        framing = "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""
        return f"HTTP/1.1 {status} \r\n{lines}{framing}\r\n".encode("latin-1")

    async def gets_cut(self) -> bytes:
        try:
            while await self._read():
                pass
        except (ConnectionError, AssertionError):
            pass
        return self._take(len(self._held))

    def has(self) -> bytes:
        events = [event for number in self._streams for event in self._http2.events[number]]
        left = [event for event in events if isinstance(event, ResponseReceived | DataReceived | TrailersReceived)]
        return bytes(self._held) or (repr(left).encode() if left else b"")

    def closes(self) -> None:
        self.open = False
        self._http2.closes()

    def aborts(self) -> None:
        self.open = False
        self._http2.wire.aborts()
