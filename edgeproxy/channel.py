"""The line between a supervisor and one worker: a socket pair that carries JSON messages, each in a frame.

A frame is its length in four bytes, big-endian, then a JSON object with a `type`. Down go:

- `config`: what to serve, once, before all else;
- `endpoints`: where each upstream can be reached, the whole truth each time (`supervisor/upstreams.py`);
- `certificates`: files of certificates have changed, can be used, and are to be loaded anew;
- `drain`: finish within `deadline` seconds, and leave.

Up go `ready`, `failed` and `left`. The end of the stream means that the other side is gone.
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


class Outbox:
    """What is still to be sent over one channel, without anybody waiting for it: of each type the last message only.

    So what waits for a process that does not read is bounded, however long that goes on, and however much there is
    to tell it; once it reads again it gets the truth of that moment.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[str, dict[str, Any]] = {}
        self._some = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        """Send this, after what waits already, and in place of a message of its type that does."""
        self._waiting[message["type"]] = message
        self._some.set()

    async def deliver(self) -> None:
        """Send whatever is put in; ends when nobody is there to read it."""
        try:
            while True:
                await self._some.wait()
                while self._waiting:
                    await self._channel.send(self._waiting.pop(next(iter(self._waiting))))
                self._some.clear()
        except ChannelClosed:
            pass
