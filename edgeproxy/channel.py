"""The line between a supervisor and one worker: a socket pair that carries JSON messages, each in a frame.

A frame is its length in four bytes, big-endian, then a JSON object with a `type`. Down go `config` and `drain`,
up go `ready`, `failed` and `left`. The end of the stream means that the other side is gone.
"""

import asyncio
import socket
import struct
from typing import Any

import orjson

LENGTH = struct.Struct(">I")
LONGEST = 1 << 30
"""Bytes of one message; a configuration with a million keys is some two hundred megabytes."""


class ChannelClosed(Exception):
    """The other side of the channel is gone."""


class Channel:
    """One end of the line. Messages are dicts with a `type`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """The channel over this end of a socket pair, which it owns from here on."""
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer)

    async def send(self, message: dict[str, Any]) -> None:
        """Send one message; raises ChannelClosed where nobody is there to read it."""
        body = orjson.dumps(message)
        try:
            self._writer.write(LENGTH.pack(len(body)) + body)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as lost:
            raise ChannelClosed from lost

    async def receive(self) -> dict[str, Any]:
        """The next message; raises ChannelClosed at the end of the stream or on a frame that cannot be."""
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > LONGEST:
                raise ChannelClosed
            message: dict[str, Any] = orjson.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as lost:
            raise ChannelClosed from lost
        return message

    def close(self) -> None:
        """Close this end; the other end reads the end of the stream."""
        self._writer.close()
