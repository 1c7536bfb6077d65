"""Memory that several processes read, and that none can change any more (memfd_create(2))."""

import fcntl
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from mmap import MAP_PRIVATE, PROT_READ, mmap
from struct import Struct
from weakref import finalize

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
NUMBER, DESCRIPTOR = Struct("=Q"), Struct("@i")
_numbers = count(1)


class SealedMemory:
    """Memory with a descriptor, which is closed with this object. The memory is freed with its last map."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        """Create memory with these parts, one after another. Raises OSError if the system has none."""
        self.number = next(_numbers)
        """Its number among all such memory of this process."""
        self.descriptor = os.memfd_create("edgeproxy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        finalize(self, os.close, self.descriptor)
        with open(self.descriptor, "wb", closefd=False) as file:
            file.writelines(parts)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)

    def map(self) -> mmap:
        """Map the memory."""
        return map_memory(self.descriptor)

    def send(self, receiver: socket.socket) -> None:
        """Send the memory to a process. Raises OSError, also if `receiver` has not received earlier memory for long."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, DESCRIPTOR.pack(self.descriptor))
        # Not `send_fds`, which ignores the flag.
        receiver.sendmsg([NUMBER.pack(self.number)], [rights], socket.MSG_DONTWAIT)


class MemoryMissingError(ValueError):
    """The memory that belongs to a message could not be received."""


class MemoryReceiver:
    """The memory that another process sends, by number."""

    def __init__(self, end: socket.socket | None) -> None:
        """`end` is a socket of the type SOCK_SEQPACKET; without one, no memory comes."""
        self._end = end
        self._maps: dict[int, mmap] = {}

    def take(self, number: int) -> mmap:
        """Return the memory with this number, which was sent before. Memory with a lower number is not needed.

        Raises MemoryMissingError if it has not come, or this process had no free descriptor for it.
        """
        while self._receive():
            pass
        for older in [each for each in self._maps if each < number]:
            del self._maps[older]
        try:
            return self._maps.pop(number)
        except KeyError:
            raise MemoryMissingError(f"memory {number} has not come") from None

    def _receive(self) -> bool:
        """Receive the next memory; return False if no more has come."""
        if self._end is None:
            return False
        try:
            # No child may inherit the descriptor.
            flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            message, rights, _, _ = self._end.recvmsg(NUMBER.size, socket.CMSG_SPACE(DESCRIPTOR.size), flags)
        except OSError:
            return False
        # Without a free descriptor the message comes alone. A map takes one too.
        for _, _, right in rights:
            (descriptor,) = DESCRIPTOR.unpack(right)
            try:
                with suppress(OSError):
                    self._maps[NUMBER.unpack(message)[0]] = map_memory(descriptor)
            finally:
                os.close(descriptor)
        return bool(message)  # At the end of the other process it is empty.


NO_MEMORY = MemoryReceiver(None)


def map_memory(descriptor: int) -> mmap:
    """Map memory, to read it. The map keeps the memory without the descriptor."""
    # Linux before 6.7 refuses a shared map of sealed memory, although it only reads. A private map has equal pages, as
    # no process writes.
    return mmap(descriptor, 0, flags=MAP_PRIVATE, prot=PROT_READ)
