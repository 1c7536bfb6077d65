"""Resets: the end of a connection that marks its data as incomplete."""

import asyncio
import fcntl
import socket
import struct
import termios

AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER without time: closing drops unsent data and sends a reset."""


def reset_connection(transport: asyncio.Transport) -> None:
    """End a connection at once, by a reset. Without one the stream would seem to have ended normally."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


def count_unacknowledged(transport: asyncio.Transport) -> int:
    """Return the bytes that the kernel holds because the peer has not acknowledged them (tcp(7), SIOCOUTQ).

    A reset drops these bytes.
    """
    held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(held, "little")


def was_reset(transport: asyncio.Transport) -> bool:
    """Return whether the reported end of the peer's stream was a reset; to be called once, in `eof_received`.

    libuv reports the end if a reset comes together with the last bytes.
    """
    error: int = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return error != 0
