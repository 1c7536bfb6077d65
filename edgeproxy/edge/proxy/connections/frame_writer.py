"""The frames of one HTTP/2 connection on their way to its transport. Frames of one turn go out in one piece.

One piece is one system call, and one record of TLS.
"""

import asyncio
from collections.abc import Sized
from typing import Final

HELD_BYTES_MAX: Final = 256 << 10
"""Bytes that are kept for one joint write. Beyond them the transport is asked whether it takes more."""

COPIED_BYTES_MAX: Final = 16 << 10
"""Bytes that are copied into one piece; writing more separately is cheaper."""


class FrameWriter:
    """Frames between a connection and its transport, in order."""

    __slots__ = ("_call_soon", "_is_scheduled", "_parts", "_size", "_transport", "is_held", "streams")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        """Bytes of the answers among them."""
        self._is_scheduled = False
        self.is_held = False
        """Everything is kept until `flush`: a read may lead to many writes."""
        self.streams: Sized = ()
        """The open streams. If there are several, more may be written in this turn of the loop."""

    def write(self, data: bytes) -> None:
        """Write a lone frame at once, and others at the end of the turn."""
        if self.is_held or self._is_scheduled or len(self.streams) > 1:
            self._parts.append(data)
            self._schedule()
        else:
            self._transport.write(data)

    def write_many(self, parts: list[bytes | memoryview]) -> None:
        """Write these together."""
        if self.is_held or self._is_scheduled or len(self.streams) > 1:
            self._parts += parts
            self._size += sum(map(len, parts))
            if self._size > HELD_BYTES_MAX:
                self._write_out()
            self._schedule()
        else:
            self._send(parts)

    def flush(self) -> None:
        """Write all kept frames."""
        self.is_held = self._is_scheduled = False
        if self._parts:
            self._write_out()

    def drop(self) -> None:
        """Drop all kept frames: the transport is gone."""
        self._parts = []

    def _write_out(self) -> None:
        parts, self._parts, self._size = self._parts, [], 0
        self._send(parts)

    def _schedule(self) -> None:
        if not (self.is_held or self._is_scheduled):
            self._is_scheduled = True
            self._call_soon(self.flush)

    def _send(self, parts: list[bytes | memoryview]) -> None:
        if len(parts) > 1 and sum(map(len, parts)) > COPIED_BYTES_MAX:
            self._transport.writelines(parts)
        else:
            self._transport.write(b"".join(parts))
