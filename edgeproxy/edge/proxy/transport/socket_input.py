"""Input of a socket that the loop has not read yet. The loop reads once per turn, and much can arrive in between."""

import asyncio
import os
import select
import socket

READ_BYTES_MAX = 64 << 10
"""Bytes of one read."""

DISCARDED_BYTES_MAX = 256 << 10
"""Maximum bytes that one call discards."""

_UNTOUCHED = bytearray(DISCARDED_BYTES_MAX)
"""A buffer as long as the discarded input. The kernel writes nothing to it (tcp(7), MSG_TRUNC), so it takes no
memory.
"""


def is_readable(transport: asyncio.Transport) -> bool:
    """Return whether there is something to read: bytes, the end of the peer's stream, or an error."""
    poll = select.poll()
    poll.register(_get_descriptor(transport), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def read_remaining(transport: asyncio.Transport) -> bytes:
    """Read the bytes that came before the connection broke and that the loop will not read; for `connection_lost`.

    Linux keeps them through a reset until they are read.
    """
    pieces = []
    try:
        while piece := os.read(_get_descriptor(transport), READ_BYTES_MAX):
            pieces.append(piece)
    except OSError:
        pass  # There are no more bytes.
    return b"".join(pieces)


def has_left(sock: socket.socket) -> bool:
    """Return whether the peer has closed or reset the connection and left nothing to read. `sock` does not block."""
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def discard_input(transport: asyncio.Transport) -> int | None:
    """Let the kernel discard the received input, so that no byte is copied. The transport must have paused reading.

    Return the number of bytes, or None if the peer has closed or reset the connection.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, _get_descriptor(transport))  # Works for any family.
    try:
        return sock.recv_into(_UNTOUCHED, DISCARDED_BYTES_MAX, socket.MSG_TRUNC | socket.MSG_DONTWAIT) or None
    except BlockingIOError:
        return 0
    except OSError:
        return None
    finally:
        sock.detach()


def _get_descriptor(transport: asyncio.Transport) -> int:
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor
