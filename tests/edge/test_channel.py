"""The line between two processes, over a real socket pair, with the messages of a supervisor and its worker."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import uvloop

from edgeproxy.base.sealed_memory import SealedMemory
from edgeproxy.base.tasks import Tasks
from edgeproxy.edge import messages
from edgeproxy.edge.channel import FRAME_BYTES_MAX, Channel, ChannelClosedError, Frame, Outbox, UnknownMessageError
from edgeproxy.edge.messages import (
    Alive,
    Commit,
    Committed,
    Discard,
    Drain,
    EndpointAddresses,
    ForgetCustomers,
    KeysLookedUp,
    LoadCertificates,
    Prepare,
    Ready,
    SetEndpoints,
    ToSupervisor,
    ToWorker,
    pack_for_workers,
)

Supervisor: TypeAlias = Channel[ToWorker, ToSupervisor]
Worker: TypeAlias = Channel[ToSupervisor, ToWorker]


def between(scene: Callable[[Supervisor, Worker], Awaitable[None]]) -> None:
    """Run `scene` with the two ends of a channel."""

    async def play() -> None:
        above, below = socket.socketpair()
        memory_above, memory_below = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one, other = (
            await Channel.from_socket(above, messages.SUPERVISOR, memory_above),
            await Channel.from_socket(below, messages.WORKER, memory_below),
        )
        async with asyncio.timeout(5):
            await scene(one, other)
        one.close()
        other.close()

    uvloop.run(play())


def beside(scene: Callable[[Worker, socket.socket], Awaitable[None]]) -> None:
    """Run `scene` with a worker's end of a channel and the bare socket at its other end."""

    async def play() -> None:
        mine, raw = socket.socketpair()
        raw.setblocking(False)
        channel = await Channel.from_socket(mine, messages.WORKER)
        with raw:
            async with asyncio.timeout(5):
                await scene(channel, raw)
        channel.close()

    uvloop.run(play())


async def sends(raw: socket.socket, sent: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(raw, sent)


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def endpoints(number: int, address: str = "10.0.0.1") -> SetEndpoints:
    return SetEndpoints(number, {"api": [EndpointAddresses([address], [])]})


def test_messages_arrive_whole_and_in_order() -> None:
    async def scene(one: Supervisor, other: Worker) -> None:
        sent = [endpoints(n, "ä" * n) for n in range(50)]
        for message in sent:
            await one.send(message)
        assert [await other.receive() for _ in sent] == sent

    between(scene)


def test_channel_carries_messages_both_ways_at_once() -> None:
    async def scene(one: Supervisor, other: Worker) -> None:
        await one.send(Drain(5.0))
        await other.send(Ready(1))
        assert await one.receive() == Ready(1)
        assert await other.receive() == Drain(5.0)

    between(scene)


def test_a_message_of_many_megabytes_arrives() -> None:
    async def scene(one: Supervisor, other: Worker) -> None:
        message = Prepare(2, b"x" * (8 << 20), {})
        _, received = await asyncio.gather(one.send(message), other.receive())
        assert received == message

    between(scene)


def test_memory_of_a_message_is_there_when_the_message_is() -> None:
    async def scene(one: Supervisor, other: Worker) -> None:
        memories = [SealedMemory([b"of %d" % number]) for number in range(3)]
        for memory in memories:
            await one.send(pack_for_workers(Commit(memory.number), memory))
        for number, memory in enumerate(memories):
            assert await other.receive() == Commit(memory.number)
            assert other.memory.take(memory.number)[:] == b"of %d" % number

    between(scene)


def test_a_receiver_that_takes_no_memory_gets_its_messages() -> None:
    """Its socket is full after some hundred messages, and the sender waits for nobody."""

    async def scene(one: Supervisor, other: Worker) -> None:
        memory = SealedMemory([b"memory"])
        frame = pack_for_workers(Commit(memory.number), memory)
        for _ in range(2000):
            await one.send(frame)
            assert await other.receive() == Commit(memory.number)
        assert other.memory.take(memory.number)[:] == b"memory"
        # And it takes memory again.
        later = SealedMemory([b"later"])
        await one.send(pack_for_workers(Commit(later.number), later))
        assert await other.receive() == Commit(later.number)
        assert other.memory.take(later.number)[:] == b"later"

    between(scene)


def test_a_frame_split_at_every_byte_is_one_message() -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        for byte in pack_for_workers(Commit(7)).data:
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await channel.receive() == Commit(7)

    beside(scene)


def test_the_end_of_the_stream_is_a_closed_channel() -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        raw.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ChannelClosedError, match="is gone"):
            await channel.receive()

    beside(scene)


def test_the_end_of_the_stream_in_the_middle_of_a_message_is_a_closed_channel() -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        raw.send(struct.pack(">I", 100) + b"{")
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelClosedError, match="is gone"):
            await channel.receive()

    beside(scene)


def test_a_frame_longer_than_any_message_is_a_closed_channel() -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        raw.send(struct.pack(">I", FRAME_BYTES_MAX + 1))
        with pytest.raises(ChannelClosedError, match="longer than any message"):
            await channel.receive()

    beside(scene)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x81", pack_for_workers(Commit(7)).data[4:-1], b"\x82\xa4type\xafForgetCustomers\xa5names\x91\xa1\xff"],
)
def test_a_frame_that_cannot_be_read_is_a_closed_channel(body: bytes) -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        await sends(raw, framed(body))
        with pytest.raises(ChannelClosedError, match="cannot be read"):
            await channel.receive()

    beside(scene)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x81\xa4type\xa3new", "Invalid value 'new'"),
        (b"\x81\xa4type\xa6Commit", "missing required field `number`"),
        (b"\x82\xa4type\xa6Commit\xa6number\xa1a", "Expected `int`, got `str`"),
        (b"\x82\xa4type\xa6Commit\xa4more" + b"\x91" * 100_000 + b"\x01", "recursion"),
        (messages.WORKER.pack(Committed(1)).data[4:], "Invalid value 'Committed'"),
    ],
    ids=["type", "field", "value", "depth", "end"],
)
def test_channel_reads_the_next_frame_after_an_unknown_message(body: bytes, why: str) -> None:
    async def scene(channel: Worker, raw: socket.socket) -> None:
        sending = Tasks().start("send", sends(raw, framed(body) + pack_for_workers(Commit(7)).data))
        with pytest.raises(UnknownMessageError, match=why):
            await channel.receive()
        assert await channel.receive() == Commit(7)
        await sending

    beside(scene)


def test_sending_to_a_closed_peer_raises_channel_closed_error() -> None:
    async def sends_on(channel: Worker) -> None:
        while True:
            await channel.send(Alive())
            await asyncio.sleep(0)

    async def scene(channel: Worker, raw: socket.socket) -> None:
        raw.close()
        with pytest.raises(ChannelClosedError):
            await sends_on(channel)

    beside(scene)


def delivered(scene: Callable[[Outbox[ToWorker], Worker], Awaitable[None]]) -> None:
    """Run `scene` with an outbox that delivers over a channel, and with the channel's other end."""

    async def play(one: Supervisor, other: Worker) -> None:
        outbox = Outbox(one)
        tasks = Tasks()
        delivery = tasks.start("deliver", outbox.deliver())
        await scene(outbox, other)
        other.close()
        while not delivery.done():  # It ends when it has something to send.
            outbox.send_latest(LoadCertificates())
            await asyncio.sleep(0)
        await delivery
        await tasks.cancel()

    between(play)


def test_outbox_sends_messages_in_order() -> None:
    async def scene(outbox: Outbox[ToWorker], other: Worker) -> None:
        sent = [Commit(1), endpoints(1), Drain(1.0)]
        for message in sent:
            outbox.send_latest(message)
        assert [await other.receive() for _ in sent] == sent
        outbox.send_latest(endpoints(2))
        assert await other.receive() == endpoints(2)

    delivered(scene)


def test_outbox_sends_only_the_last_waiting_message_of_a_type() -> None:
    async def scene(outbox: Outbox[ToWorker], other: Worker) -> None:
        outbox.send_latest(endpoints(0))
        outbox.send_latest(LoadCertificates())
        for n in range(1, 100):
            outbox.send_latest(endpoints(n))
        assert await other.receive() == endpoints(99)
        assert await other.receive() == LoadCertificates()

    delivered(scene)


def test_outbox_of_a_peer_that_does_not_read_is_bounded() -> None:
    async def scene(outbox: Outbox[ToWorker], other: Worker) -> None:
        large = "x" * (4 << 20)
        for n in range(50):
            outbox.send_latest(endpoints(n, large))
            await asyncio.sleep(0)
        heard = 1
        while await other.receive() != endpoints(49, large):
            heard += 1
        assert heard <= 3

    delivered(scene)


def test_packed_message_equals_the_original_and_replaces_its_type() -> None:
    async def scene(one: Supervisor, other: Worker) -> None:
        message = Prepare(2, b"x" * 100_000, {})
        frame: Frame[ToWorker] = pack_for_workers(message)
        await one.send(frame)
        assert await other.receive() == message
        outbox, tasks = Outbox(one), Tasks()
        outbox.send_latest(Prepare(1, b"", {}))
        outbox.send_latest(Drain(1.0))
        outbox.send_latest(frame)
        tasks.start("deliver", outbox.deliver())
        assert await other.receive() == message
        assert await other.receive() == Drain(1.0)
        await tasks.cancel()

    between(scene)


def test_appended_messages_are_all_sent_in_order() -> None:
    async def scene(outbox: Outbox[ToWorker], other: Worker) -> None:
        outbox.send_latest(Discard(1))
        added = [*(KeysLookedUp({}, [bytes([n])], []) for n in range(3)), ForgetCustomers(None)]
        for n, message in enumerate(added):
            outbox.append(message)
            outbox.send_latest(endpoints(n))
        heard = [await other.receive() for _ in range(2 + len(added))]
        assert heard[0] == Discard(1)
        assert [each for each in heard if isinstance(each, KeysLookedUp | ForgetCustomers)] == added
        assert endpoints(3) in heard

    delivered(scene)
