"""Input of a socket that the loop has not read yet: it looks once a turn, and much can have come since."""

import asyncio
import os
import select

READ_BYTES_MAX = 64 << 10
"""Bytes of one read."""


def is_readable(transport: asyncio.Transport) -> bool:
    """Return whether there is something to read: bytes, the end of the peer's stream, or an error."""
    poll = select.poll()
    poll.register(_get_descriptor(transport), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def read_remaining(transport: asyncio.Transport) -> bytes:
    """Read what had come before the connection broke, and the loop will not read any more; for `connection_lost`.

    Linux keeps it through a reset, until it is read.
    """
    pieces = []
    try:
        while piece := os.read(_get_descriptor(transport), READ_BYTES_MAX):
            pieces.append(piece)
    except OSError:
        pass  # There is no more of it.
    return b"".join(pieces)


def _get_descriptor(transport: asyncio.Transport) -> int:
    descriptor: int = transport.get_extra_info("socket").fileno()
    return descriptor
