"""The line between a supervisor and one worker: a socket pair that carries JSON messages, each in a frame.

A frame is its length in four bytes, big-endian, then a JSON object with a `type`. Down go:

- `config`: what to serve, once, before all else;
- `endpoints`: where each upstream can be reached, the whole truth each time (`supervisor/upstreams.py`), for the
  configuration with its `number`, be it served or prepared;
- `prepare`: make ready to serve the configuration in it instead, with that `number` and with where its upstreams can
  be reached, and go on as before; answered by `prepared`, or by `refused` with `why`;
- `commit`: serve the one with this `number` from now on, if it was prepared; answered by `committed`;
- `discard`: the one with this `number` is not wanted;
- `certificates`: files of certificates have changed, can be used, and are to be loaded anew;
- `drain`: finish within `deadline` seconds, and leave;
- `heard`: answers of the hub are in the tables, or it was lost or reached;
- `unused`: nobody has used the claims of these `rows` for a while, and they are to be given back.

Up go also `ready`, `failed` and `left`, `uses` (rows of limits that other hosts share, proxy/claim_waiter.py), and
`alive` every second. The end of the stream means that the other side is gone.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Any, NamedTuple

import orjson

LENGTH = struct.Struct(">I")
LONGEST = 1 << 30
"""Bytes of one message; a configuration with a million keys is some two hundred megabytes."""


class ChannelClosed(Exception):
    """The other side of the channel is gone."""


class Frame(NamedTuple):
    """A message as it is sent. Large ones are packed once for all who get them, and in a thread."""

    type: str
    data: bytes


def pack(message: dict[str, Any]) -> Frame:
    """The frame of a message."""
    body = orjson.dumps(message)
    return Frame(message["type"], LENGTH.pack(len(body)) + body)


def type_of(message: dict[str, Any] | Frame) -> str:
    """The type of a message, packed or not."""
    return message.type if isinstance(message, Frame) else str(message["type"])


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

    async def send(self, message: dict[str, Any] | Frame) -> None:
        """Send one message; raises ChannelClosed where nobody is there to read it."""
        frame = message if isinstance(message, Frame) else pack(message)
        try:
            self._writer.write(frame.data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as lost:
            raise ChannelClosed from lost

    def offer(self, message: dict[str, Any]) -> bool:
        """Send one message, unless something that was sent before still waits to be read; whether it was sent."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        self._writer.write(pack(message).data)
        return True

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
    to tell it; once it reads again it gets the truth of that moment. Of what is added each message counts, and whoever
    adds it has to bound it.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._waiting: dict[str, dict[str, Any] | Frame] = {}
        self._added: deque[dict[str, Any]] = deque()
        self._some = asyncio.Event()

    def put(self, message: dict[str, Any] | Frame) -> None:
        """Send this, after what waits already, and in place of a message of its type that does."""
        self._waiting[type_of(message)] = message
        self._some.set()

    def add(self, message: dict[str, Any]) -> None:
        """Send this, after all others that were added, and in place of none."""
        self._added.append(message)
        self._some.set()

    async def deliver(self) -> None:
        """Send whatever is put in; ends when nobody is there to read it."""
        try:
            while True:
                await self._some.wait()
                while self._waiting or self._added:
                    if self._waiting:
                        await self._channel.send(self._waiting.pop(next(iter(self._waiting))))
                    if self._added:
                        await self._channel.send(self._added.popleft())
                self._some.clear()
        except ChannelClosed:
            pass
