"""A service that speaks HTTP/2 without TLS and keeps the windows; each path has an answer of its own.

The window for uploads is 1 MiB for a connection and a stream, as of Go's net/http.
"""

import asyncio
from struct import iter_unpack, pack, unpack_from
from typing import cast

import hpack

from loadtest.neighbours import frames

_PREFACE_BYTES, _HEAD_BYTES = 24, 9
_BLOCK_FRAMES = 4000
_UPLOAD_WINDOW = 1 << 20
_INITIAL_WINDOW_SIZE = 4
_OK = b"\x88"
_CONTINUATION = 9
_FRAME_MAX = 16_384
ENDLESS = {b"/h2c/frames": 1, b"/h2c/large": 8192}
"""Answers without end, and the octets of their DATA frames."""
FLOODS = {
    b"/h2c/empty": (frames.DATA, 0, b""),
    b"/h2c/pings": (frames.PING, 0, bytes(8)),
    b"/h2c/settings": (frames.SETTINGS, 0, b""),
}
"""Frames that take no room of a window, sent without end: of the stream (DATA), or of the connection."""
HEADS = {
    b"/h2c/long-head": b"\x00\x05x-why\x7f\xc1\xb7\x02" + b"~" * 40_000,
    b"/h2c/many-fields": b"\x00\x01x\x05value" * 450,
}
"""Fields of answers that peers may find too long."""


class Exchange(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = _PREFACE_BYTES
        self._decoder = hpack.Decoder()
        self._room = self._first = 65_535
        self._endless: dict[int, list[int]] = {}
        """Streams with an endless answer: the octets that each may still send, and the octets of its frames."""
        self._floods: dict[int, bytes] = {}
        self._posts: dict[int, bool] = {}
        """Streams with a body to come: whether it is read."""
        self._paused = self._pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        settings = frames.frame(frames.SETTINGS, 0, 0, pack(">HI", _INITIAL_WINDOW_SIZE, _UPLOAD_WINDOW))
        self._transport.write(settings + frames.window(0, _UPLOAD_WINDOW - 65_535))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._skip and len(self._data) >= self._skip:
            del self._data[: self._skip]
            self._skip = 0
        while not self._skip and len(self._data) >= _HEAD_BYTES:
            length = int.from_bytes(self._data[:3], "big")
            if len(self._data) < _HEAD_BYTES + length:
                break
            kind, flags, stream = self._data[3], self._data[4], int.from_bytes(self._data[5:9], "big")
            payload = bytes(self._data[_HEAD_BYTES : _HEAD_BYTES + length])
            del self._data[: _HEAD_BYTES + length]
            self._handle(kind, flags, stream, payload)
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            first = dict(iter_unpack(">HI", payload)).get(_INITIAL_WINDOW_SIZE, self._first)
            for one in self._endless.values():
                one[0] += first - self._first
            self._first = first
            self._transport.write(frames.frame(frames.SETTINGS, frames.ACK))
        elif kind == frames.PING and not flags & frames.ACK:
            self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE and not stream:
            self._room += unpack_from(">I", payload)[0]
        elif kind == frames.WINDOW_UPDATE and stream in self._endless:
            self._endless[stream][0] += unpack_from(">I", payload)[0]
        elif kind == frames.RST_STREAM:
            for each in (self._endless, self._floods, self._posts):
                each.pop(stream, None)
        elif kind == frames.HEADERS:
            self._begin(
                stream, dict(self._decoder.decode(payload, raw=True))[b":path"], bool(flags & frames.END_STREAM)
            )
        elif kind == frames.DATA and self._posts.get(stream):
            if payload:
                self._transport.write(frames.window(0, len(payload)) + frames.window(stream, len(payload)))
            if flags & frames.END_STREAM:
                del self._posts[stream]
                self._answer(stream, b"")

    def _begin(self, stream: int, path: bytes, ended: bool) -> None:
        if not ended:
            self._posts[stream] = path != b"/h2c/unread"
        elif path in ENDLESS:
            self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, _OK))
            self._endless[stream] = [self._first, ENDLESS[path]]
        elif path in FLOODS:
            kind, flags, payload = FLOODS[path]
            self._transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, _OK))
            number = stream if kind == frames.DATA else 0
            self._floods[stream] = frames.frame(kind, flags, number, payload) * _BLOCK_FRAMES
        elif path != b"/h2c/hang":
            self._answer(stream, HEADS.get(path, b""))

    def _answer(self, stream: int, fields: bytes) -> None:
        block = _OK + frames.literal(b"content-length", b"2") + fields
        parts = [block[at : at + _FRAME_MAX] for at in range(0, len(block), _FRAME_MAX)]
        self._transport.write(
            b"".join(
                frames.frame(
                    _CONTINUATION if number else frames.HEADERS,
                    frames.END_HEADERS if number == len(parts) - 1 else 0,
                    stream,
                    part,
                )
                for number, part in enumerate(parts)
            )
            + frames.frame(frames.DATA, frames.END_STREAM, stream, b"ok")
        )

    def _pump(self) -> None:
        # One block for each turn of the loop, so that other requests are answered meanwhile.
        if self._pumping or self._paused or self._transport.is_closing():
            return
        for block in self._floods.values():
            self._transport.write(block)
            self._pumping = True
        for stream, one in self._endless.items():
            room, size = one
            if (count := min(room // size, self._room // size, _BLOCK_FRAMES if size == 1 else 8)) > 0:
                self._transport.write(frames.frame(frames.DATA, 0, stream, b"x" * size) * count)
                one[0] -= count * size
                self._room -= count * size
                self._pumping = True
        if self._pumping:
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump()
