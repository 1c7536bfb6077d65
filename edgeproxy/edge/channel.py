"""A channel between two processes: a stream socket that carries messages, each in a frame.

A frame is its length in four bytes, big-endian, then one message. messages.py says what messages exist, and how they
are encoded. The end of the stream means that the other side is gone.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

import msgspec

from edgeproxy.base.sealed_memory import MemoryReceiver, SealedMemory

Sent = TypeVar("Sent")
Received = TypeVar("Received")
Packed = TypeVar("Packed", covariant=True)

LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 1 << 30
"""Bytes of one message; without memory to share, a configuration with a million keys has some 70 megabytes."""


class ChannelClosedError(Exception):
    """The other side of the channel is gone, or sends bytes that cannot be read; the text says why."""


class UnknownMessageError(ChannelClosedError):
    """A whole frame has come, but it holds no message that this end knows. The next frame can still be read."""


class Frame(NamedTuple, Generic[Packed]):
    """A message in its sent form. A large one is packed once for all its receivers, and in a thread."""

    type: type[Packed]
    data: bytes
    memory: SealedMemory | None = None
    """Memory that belongs to the message."""


class Codec(Generic[Sent, Received]):
    """The codec of one end of a channel."""

    def __init__(self, encode: Callable[[Sent], bytes], decode: Callable[[bytes], Received]) -> None:
        """`decode` raises msgspec.ValidationError for bytes that are not a message, DecodeError for bytes that cannot
        be decoded.
        """
        self._encode, self._decode = encode, decode

    def pack(self, message: Sent) -> Frame[Sent]:
        """Return the frame of a message."""
        body = self._encode(message)
        return Frame(type(message), LENGTH.pack(len(body)) + body)

    def unpack(self, body: bytes) -> Received:
        """Return the message in a frame; raises UnknownMessageError, or ChannelClosedError."""
        try:
            return self._decode(body)
        except (msgspec.ValidationError, RecursionError) as error:
            raise UnknownMessageError(f"a frame of {len(body)} bytes is no message that is known: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ChannelClosedError(f"a frame of {len(body)} bytes cannot be read: {error}") from error


def get_message_type(message: Sent | Frame[Sent]) -> type[Sent]:
    """Return the type of a message, packed or not."""
    return message.type if isinstance(message, Frame) else type(message)


class Channel(Generic[Sent, Received]):
    """One end of a channel: it sends `Sent` and receives `Received`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        codec: Codec[Sent, Received],
        memory_end: socket.socket | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._codec = codec
        self._memory_end = memory_end
        self.memory = MemoryReceiver(memory_end)
        """The memory that belongs to received messages."""

    @classmethod
    async def from_socket(
        cls, end: socket.socket, codec: Codec[Sent, Received], memory_end: socket.socket | None = None
    ) -> "Channel[Sent, Received]":
        """Return the channel over this end of a socket pair, which it owns from here on.

        `memory_end` is of another pair, of the type SOCK_SEQPACKET, for memory that belongs to messages. Streams of
        asyncio pass no descriptors.
        """
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, codec, memory_end)

    async def send(self, message: Sent | Frame[Sent]) -> None:
        """Send one message; raises ChannelClosedError if the other side is gone."""
        frame = message if isinstance(message, Frame) else self._codec.pack(message)
        if frame.memory is not None and self._memory_end is not None:
            # A receiver that hangs, or is gone, does not take it. One that lacks it cannot read the message.
            with suppress(OSError):
                frame.memory.send(self._memory_end)
        try:
            self._writer.write(frame.data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise ChannelClosedError("the other side is gone") from error

    def try_send(self, message: Sent) -> bool:
        """Send one message, unless an earlier one still waits to be read; returns whether it was sent."""
        transport = self._writer.transport
        # A receiver that hangs must not fill the memory with messages of this kind.
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        self._writer.write(self._codec.pack(message).data)
        return True

    async def receive(self) -> Received:
        """Return the next message.

        Raises ChannelClosedError at the end of the stream or on a frame that cannot be valid, and UnknownMessageError,
        a kind of it, on a frame that holds no message of this version.
        """
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            if length > FRAME_BYTES_MAX:
                raise ChannelClosedError(f"a frame of {length} bytes is longer than any message")
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChannelClosedError("the other side is gone") from error
        return self._codec.unpack(body)

    def close(self) -> None:
        """Close this end; the other end reads the end of the stream."""
        self._writer.close()
        if self._memory_end is not None:
            self._memory_end.close()


class Outbox(Generic[Sent]):
    """The queue of messages to send over one channel. It blocks no caller and keeps only the last message of each type.

    So the queue for a process that does not read stays bounded, however long this lasts and however much there is to
    send. Once the process reads again, it gets the current state. Messages given to `append` are all kept, and the
    caller has to bound them.
    """

    def __init__(self, channel: Channel[Sent, Received]) -> None:
        self._send = channel.send
        self._waiting: dict[type[Sent], Sent | Frame[Sent]] = {}
        self._added: deque[Sent] = deque()
        self._some = asyncio.Event()

    def send_latest(self, message: Sent | Frame[Sent]) -> None:
        """Send this after the messages that wait already, and in place of a waiting message of its type."""
        self._waiting[get_message_type(message)] = message
        self._some.set()

    def append(self, message: Sent) -> None:
        """Send this after all other appended messages, and in place of none."""
        self._added.append(message)
        self._some.set()

    async def deliver(self) -> None:
        """Send every message that is put in; ends when the other side is gone."""
        try:
            while True:
                await self._some.wait()
                while self._waiting or self._added:
                    if self._waiting:
                        await self._send(self._waiting.pop(next(iter(self._waiting))))
                    if self._added:
                        await self._send(self._added.popleft())
                self._some.clear()
        except ChannelClosedError:
            pass
