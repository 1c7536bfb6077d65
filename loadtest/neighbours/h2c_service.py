"""A service that speaks HTTP/2 without TLS and keeps the windows: `/h2c/ok`, and answers that come in tiny frames."""

import asyncio
from struct import iter_unpack, unpack_from
from typing import cast

import hpack

from loadtest.neighbours import frames

_PREFACE_BYTES = 24
_HEAD_BYTES = 9
_BLOCK_FRAMES = 4000
_FIRST_WINDOW = 65_535
_INITIAL_WINDOW_SIZE = 4


class Exchange(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self) -> None:
        self._data = b""
        self._skip = _PREFACE_BYTES
        self._decoder = hpack.Decoder()
        self._room, self._first = _FIRST_WINDOW, _FIRST_WINDOW
        self._rooms: dict[int, int] = {}
        """Octets that each stream with an endless answer may send."""
        self._paused = self._pumping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(frames.frame(frames.SETTINGS) + frames.window(0, frames.LARGEST_WINDOW - 65_535))

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._skip and len(self._data) >= self._skip:
            self._data, self._skip = self._data[self._skip :], 0
        while not self._skip and len(self._data) >= _HEAD_BYTES:
            length = int.from_bytes(self._data[:3], "big")
            if len(self._data) < _HEAD_BYTES + length:
                break
            kind, flags = self._data[3], self._data[4]
            stream = int.from_bytes(self._data[5:9], "big")
            payload = self._data[_HEAD_BYTES : _HEAD_BYTES + length]
            self._data = self._data[_HEAD_BYTES + length :]
            self._handle(kind, flags, stream, payload)
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _handle(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._first = dict(iter_unpack(">HI", payload)).get(_INITIAL_WINDOW_SIZE, self._first)
            self._transport.write(frames.frame(frames.SETTINGS, frames.ACK))
        elif kind == frames.PING and not flags & frames.ACK:
            self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.WINDOW_UPDATE:
            octets = unpack_from(">I", payload)[0]
            if stream:
                if stream in self._rooms:
                    self._rooms[stream] += octets
            else:
                self._room += octets
        elif kind == frames.RST_STREAM:
            self._rooms.pop(stream, None)
        elif kind == frames.HEADERS:
            self._answer(stream, dict(self._decoder.decode(payload, raw=True))[b":path"])

    def _answer(self, stream: int, path: bytes) -> None:
        head = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, b"\x88")
        if path == b"/h2c/frames":
            self._transport.write(head)
            self._rooms[stream] = self._first
        elif path == b"/h2c/ok":
            length = frames.frame(
                frames.HEADERS, frames.END_HEADERS, stream, b"\x88" + frames.literal(b"content-length", b"2")
            )
            self._transport.write(length + frames.frame(frames.DATA, frames.END_STREAM, stream, b"ok"))

    def _pump(self) -> None:
        if self._pumping or self._paused or self._transport.is_closing():
            return
        for stream, room in self._rooms.items():
            if (count := min(room, self._room, _BLOCK_FRAMES)) > 0:
                self._transport.write(frames.frame(frames.DATA, 0, stream, b"x") * count)
                self._rooms[stream] -= count
                self._room -= count
                self._pumping = True
        if self._pumping:
            asyncio.get_running_loop().call_soon(self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump()
