"""Memory that a process sends to another one: nobody can change it, and it lives as long as a map of it."""

import fcntl
import mmap
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeproxy.base.sealed_memory import NO_MEMORY, MemoryMissingError, MemoryReceiver, SealedMemory


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def count_memory() -> int:
    """Count the open descriptors and maps of such memory."""
    maps = Path("/proc/self/maps").read_text().count("memfd:edgeproxy")
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return maps + sum("memfd:edgeproxy" in os.readlink(link) for link in links if os.path.islink(link))


def test_memory_arrives_by_its_number_and_outlives_its_sender(ends: tuple[socket.socket, socket.socket]) -> None:
    before = count_memory()
    memories = [SealedMemory([b"memory ", str(number).encode()]) for number in range(3)]
    receiver = MemoryReceiver(ends[1])
    for memory in memories:
        memory.send(ends[0])
    numbers = [memory.number for memory in memories]
    del memory, memories
    second = receiver.take(numbers[1])
    assert second[:] == b"memory 1"
    for number in (numbers[0], numbers[1], numbers[2] + 1):
        with pytest.raises(ValueError, match="has not come"):
            receiver.take(number)
    del second
    assert count_memory() == before, "all of it is freed, also memory that was passed over"


def test_memory_comes_from_no_one_without_a_sender(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    for receiver in (MemoryReceiver(ends[1]), NO_MEMORY):
        with pytest.raises(ValueError, match="memory 7 has not come"):
            receiver.take(7)


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Let this process open so many descriptors more."""
    opened = [os.dup(0) for _ in range(count + 1)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened), before[1]))
    for each in opened:
        os.close(each)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("left", [0, 1])
def test_memory_that_finds_no_descriptor_is_missing_and_the_next_one_arrives(
    ends: tuple[socket.socket, socket.socket], left: int
) -> None:
    before = count_memory()
    first, second, third = [SealedMemory([b"abc"]) for _ in range(3)]
    receiver = MemoryReceiver(ends[1])
    first.send(ends[0])
    second.send(ends[0])
    with descriptors_left(left), pytest.raises(MemoryMissingError, match="has not come"):
        receiver.take(second.number)
    third.send(ends[0])
    assert receiver.take(third.number)[:] == b"abc"
    del first, second, third
    assert count_memory() == before


def test_sealed_memory_can_neither_change_nor_grow(ends: tuple[socket.socket, socket.socket]) -> None:
    memory = SealedMemory([b"abc"])
    memory.send(ends[0])
    received = MemoryReceiver(ends[1]).take(memory.number)
    for change in (
        lambda: os.pwrite(memory.descriptor, b"x", 0),
        lambda: os.ftruncate(memory.descriptor, 1),
        lambda: os.ftruncate(memory.descriptor, 9),
        lambda: fcntl.fcntl(memory.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        lambda: mmap.mmap(memory.descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        with pytest.raises(OSError):
            change()
    with pytest.raises(TypeError):
        received[0] = 0
    assert (memory.map()[:], received[:]) == (b"abc", b"abc")


def test_no_descriptor_of_memory_is_inherited(ends: tuple[socket.socket, socket.socket]) -> None:
    memory = SealedMemory([b"abc"])
    memory.send(ends[0])
    received = MemoryReceiver(ends[1]).take(memory.number)
    for link in [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]:
        if os.path.islink(link) and "memfd:edgeproxy" in os.readlink(link):
            assert not os.get_inheritable(int(link.rpartition("/")[2]))
    assert received[:] == b"abc"
