"""The line between a supervisor and its worker, over a real socket pair."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import orjson
import pytest
import uvloop

from edgeproxy.channel import LONGEST, Channel, ChannelClosed, Outbox, pack, type_of
from edgeproxy.tasks import Tasks


def between(scene: Callable[[Channel, Channel], Awaitable[None]]) -> None:
    """Run `scene` with the two ends of a channel."""

    async def play() -> None:
        one, other = [await Channel.over(end) for end in socket.socketpair()]
        async with asyncio.timeout(5):
            await scene(one, other)
        one.close()
        other.close()

    uvloop.run(play())


def beside(scene: Callable[[Channel, socket.socket], Awaitable[None]]) -> None:
    """Run `scene` with one end of a channel and the bare socket at its other end."""

    async def play() -> None:
        mine, raw = socket.socketpair()
        raw.setblocking(False)
        channel = await Channel.over(mine)
        with raw:
            async with asyncio.timeout(5):
                await scene(channel, raw)
        channel.close()

    uvloop.run(play())


def test_messages_arrive_whole_and_in_order() -> None:
    async def scene(one: Channel, other: Channel) -> None:
        sent = [{"type": "config", "n": n, "text": "ä" * n} for n in range(50)]
        for message in sent:
            await one.send(message)
        assert [await other.receive() for _ in sent] == sent

    between(scene)


def test_both_ways_at_once() -> None:
    async def scene(one: Channel, other: Channel) -> None:
        await one.send({"type": "drain"})
        await other.send({"type": "ready"})
        assert await one.receive() == {"type": "ready"}
        assert await other.receive() == {"type": "drain"}

    between(scene)


def test_a_message_of_many_megabytes_arrives() -> None:
    async def scene(one: Channel, other: Channel) -> None:
        message = {"type": "config", "settings": "x" * (8 << 20)}
        _, received = await asyncio.gather(one.send(message), other.receive())
        assert received == message

    between(scene)


def test_a_frame_split_at_every_byte_is_one_message() -> None:
    async def scene(channel: Channel, raw: socket.socket) -> None:
        body = orjson.dumps({"type": "ready"})
        for byte in struct.pack(">I", len(body)) + body:
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await channel.receive() == {"type": "ready"}

    beside(scene)


def test_the_end_of_the_stream_is_a_closed_channel() -> None:
    async def scene(channel: Channel, raw: socket.socket) -> None:
        raw.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ChannelClosed):
            await channel.receive()

    beside(scene)


def test_the_end_of_the_stream_in_the_middle_of_a_message_is_a_closed_channel() -> None:
    async def scene(channel: Channel, raw: socket.socket) -> None:
        raw.send(struct.pack(">I", 100) + b"{")
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelClosed):
            await channel.receive()

    beside(scene)


def test_a_frame_longer_than_any_message_is_a_closed_channel() -> None:
    async def scene(channel: Channel, raw: socket.socket) -> None:
        raw.send(struct.pack(">I", LONGEST + 1))
        with pytest.raises(ChannelClosed):
            await channel.receive()

    beside(scene)


def test_sending_to_nobody_is_a_closed_channel() -> None:
    async def sends_on(channel: Channel) -> None:
        while True:
            await channel.send({"type": "left"})
            await asyncio.sleep(0)

    async def scene(channel: Channel, raw: socket.socket) -> None:
        raw.close()
        with pytest.raises(ChannelClosed):
            await sends_on(channel)

    beside(scene)


def delivered(scene: Callable[[Outbox, Channel], Awaitable[None]]) -> None:
    """Run `scene` with what is sent over a channel, and the other end of it."""

    async def play(one: Channel, other: Channel) -> None:
        outbox = Outbox(one)
        tasks = Tasks()
        delivery = tasks.start("deliver", outbox.deliver())
        await scene(outbox, other)
        other.close()
        while not delivery.done():  # It ends when it has something to send.
            outbox.put({"type": "endpoints"})
            await asyncio.sleep(0)
        await delivery
        await tasks.cancel()

    between(play)


def test_what_is_put_in_an_outbox_is_sent_in_its_order() -> None:
    async def scene(outbox: Outbox, other: Channel) -> None:
        for kind in ("config", "endpoints", "drain"):
            outbox.put({"type": kind})
        assert [(await other.receive())["type"] for _ in range(3)] == ["config", "endpoints", "drain"]
        outbox.put({"type": "endpoints"})
        assert await other.receive() == {"type": "endpoints"}

    delivered(scene)


def test_of_what_waits_only_the_last_of_its_type_is_sent() -> None:
    async def scene(outbox: Outbox, other: Channel) -> None:
        outbox.put({"type": "endpoints", "n": 0})
        outbox.put({"type": "certificates"})
        for n in range(1, 100):
            outbox.put({"type": "endpoints", "n": n})
        assert await other.receive() == {"type": "endpoints", "n": 99}
        assert await other.receive() == {"type": "certificates"}

    delivered(scene)


def test_what_waits_for_somebody_who_does_not_read_is_bounded() -> None:
    async def scene(outbox: Outbox, other: Channel) -> None:
        large = "x" * (4 << 20)
        for n in range(50):
            outbox.put({"type": "endpoints", "n": n, "text": large})
            await asyncio.sleep(0)
        heard = [(await other.receive())["n"]]
        while heard[-1] != 49:
            heard.append((await other.receive())["n"])
        assert len(heard) <= 3

    delivered(scene)


def test_what_was_packed_is_the_same_message_and_stands_for_its_type() -> None:
    async def scene(one: Channel, other: Channel) -> None:
        message = {"type": "config", "text": "ä" * 100_000}
        frame = pack(message)
        assert type_of(frame) == type_of(message) == "config"
        await one.send(frame)
        assert await other.receive() == message
        outbox, tasks = Outbox(one), Tasks()
        outbox.put({"type": "config", "n": 1})
        outbox.put({"type": "drain"})
        outbox.put(frame)
        tasks.start("deliver", outbox.deliver())
        assert await other.receive() == message
        assert await other.receive() == {"type": "drain"}
        await tasks.cancel()

    between(scene)


def test_of_what_is_added_each_is_sent_in_its_order() -> None:
    async def scene(outbox: Outbox, other: Channel) -> None:
        outbox.put({"type": "config"})
        for n in range(3):
            outbox.add({"type": "people", "n": n})
            outbox.put({"type": "endpoints", "n": n})
        outbox.add({"type": "forget"})
        heard = [await other.receive() for _ in range(6)]
        assert heard[0] == {"type": "config"}
        assert [each for each in heard if each["type"] in ("people", "forget")] == [
            *({"type": "people", "n": n} for n in range(3)),
            {"type": "forget"},
        ]
        assert {"type": "endpoints", "n": 2} in heard

    delivered(scene)
