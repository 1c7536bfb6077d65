"""Resets: the end of a connection that says that what it carried is not whole."""

import asyncio
import fcntl
import socket
import struct
import termios

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing throws away what is unsent, and sends a reset."""


def reset_connection(transport: asyncio.Transport) -> None:
    """End a connection at once, by a reset: without one the end of the stream would look like any other."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


def count_unacknowledged(transport: asyncio.Transport) -> int:
    """Return the bytes that the kernel holds because the peer has not acknowledged them (tcp(7), SIOCOUTQ): a reset
    drops them."""
    held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(held, "little")


def was_reset(transport: asyncio.Transport) -> bool:
    """Return whether what was reported as the end of the peer's stream was a reset; ask once, in `eof_received`.

    libuv reports the end where a reset comes together with the last bytes.
    """
    error: int = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error != 0
