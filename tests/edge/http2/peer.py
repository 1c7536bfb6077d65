"""A client of Http2Connection that formats frames itself, and streams that record their events.

The code under test formats none of these frames.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from edgeproxy.edge.http1.grammar import LIMITS, HeadLimits
from edgeproxy.edge.http2.connection import Http2Connection
from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.stream import Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED, ACK = 1, 4, 8, 32, 1

Fields = list[tuple[bytes, bytes]]
GET: Fields = [(b":method", b"GET"), (b":path", b"/a?b=c"), (b":scheme", b"https"), (b":authority", b"api.example.com")]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
GET_HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


def integer(value: int, bits: int, high: int = 0) -> bytes:
    """Encode an integer with a prefix of `bits` bits (RFC 7541 section 5.1)."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([high | value])
    encoded, value = [high | top], value - top
    while value > 127:
        encoded.append(128 | value & 127)
        value >>= 7
    return bytes([*encoded, value])


def literal(name: bytes, value: bytes, kind: int = 0) -> bytes:
    """Encode a literal field with a new name. `kind` is 0x00 without indexing, 0x40 with, 0x10 never indexed."""
    return bytes([kind]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Iterable[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    return b"".join(literal(name, value, kind) for name, value in fields)


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload


def word(value: int) -> bytes:
    return struct.pack(">I", value)


def settings(*pairs: tuple[int, int], flags: int = 0, number: int = 0) -> bytes:
    return frame(SETTINGS, flags, number, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def get(number: int = 1, *more: tuple[bytes, bytes]) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, number, block([*GET, *more]))


def post(number: int = 1, *more: tuple[bytes, bytes]) -> bytes:
    return frame(HEADERS, END_HEADERS, number, block([*POST, *more]))


def data(number: int, payload: bytes = b"", *, ended: bool = False) -> bytes:
    return frame(DATA, END_STREAM if ended else 0, number, payload)


def reset(number: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, number, word(code))


def update(number: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, number, word(increment))


class Frame(NamedTuple):
    kind: int
    flags: int
    number: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or a GOAWAY."""
        return int.from_bytes(self.payload[0:4] if self.kind == RST_STREAM else self.payload[4:8], "big")


class Recorder(Stream):
    """A stream that records its events, and answers a complete request with the body of its peer."""

    def __init__(self, peer: "Peer", number: int, send_window: int, receive_window: int) -> None:
        super().__init__(number, send_window, receive_window)
        self.peer = peer

    def on_request(self, head: bytes) -> None:
        self.peer.events.append(("request", self.number, head))
        self._answer()

    def on_oversized_request(self, head: bytes) -> None:
        self.on_request(b"")

    def on_data(self, data: bytes) -> None:
        self.peer.events.append(("data", self.number, data))
        if self.peer.consumes:
            self.peer.connection.consume(self, len(data))
        self._answer()

    def on_trailers(self, lines: list[bytes]) -> None:
        self.peer.events.append(("trailers", self.number, lines))
        self._answer()

    def on_oversized_trailers(self) -> None:
        self.peer.events.append(("oversized trailers", self.number))

    def on_reset(self, code: int) -> None:
        self.peer.events.append(("reset", self.number, ErrorCode(code).name if code < 14 else code))

    def on_drained(self) -> None:
        self.peer.events.append(("drained", self.number))

    def _answer(self) -> None:
        if self.request_ended:
            self.peer.events.append(("end", self.number))
            if self.peer.body is not None:
                self.peer.connection.respond(self, b"\x88", self.peer.body)


class Peer:
    """One connection and its client. `body` is the body of each answer. With None, requests get no answer."""

    def __init__(
        self,
        body: bytes | None = None,
        *,
        greets: bool = True,
        websockets: bool = False,
        consumes: bool = True,
        limits: HeadLimits = LIMITS,
    ) -> None:
        self.body, self.consumes = body, consumes
        self.events: list[tuple[object, ...]] = []
        self.written = bytearray()
        self.closed: tuple[ErrorCode, str] | None = None
        peer = self

        class Connection(Http2Connection):
            def on_closed(self, code: ErrorCode, detail: str) -> None:
                super().on_closed(code, detail)
                peer.closed = (code, detail)

        self.connection = Connection(self.written.extend, self.extend, self.create, limits, websockets=websockets)
        if greets:
            self.send(PREFACE + settings())
            self.frames()

    def extend(self, parts: list[bytes | memoryview]) -> None:
        for part in parts:
            self.written += part

    def create(self, number: int, send_window: int, receive_window: int) -> Recorder:
        return Recorder(self, number, send_window, receive_window)

    def send(self, *frames: bytes) -> "Peer":
        """Send these frames in one piece."""
        self.connection.receive(b"".join(frames))
        return self

    def frames(self) -> list[Frame]:
        """Return the frames that were written since the last call."""
        frames, written = [], bytes(self.written)
        self.written.clear()
        while written:
            size = int.from_bytes(written[:3], "big")
            number = int.from_bytes(written[5:9], "big")
            frames.append(Frame(written[3], written[4], number, written[9 : 9 + size]))
            assert len(frames[-1].payload) == size
            assert size <= 16384
            written = written[9 + size :]
        return frames

    def stream(self, number: int = 1) -> Recorder:
        stream = self.connection.streams[number]
        assert isinstance(stream, Recorder)
        return stream
