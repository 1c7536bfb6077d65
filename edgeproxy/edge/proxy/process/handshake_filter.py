"""Handshakes that the kernel drops, for sockets that are about to be closed.

Without the filter a connection made between the last accept and the close of the socket is reset, and its client has
sent a request by then. A client whose SYN is dropped retries a second later, and finds another edge or none.
"""

import socket
import struct
from array import array
from collections.abc import Iterable
from contextlib import suppress

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""Socket options of Linux that Python does not name."""

DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x54, 0, 0, 0x12),  # keep only its SYN and ACK bits
    (0x15, 0, 1, 0x02),  # if it is SYN alone
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # or else keep it
)
"""Instructions of classic BPF: code, jumps if true and if false, operand."""


def refuse_handshakes(bound: Iterable[socket.socket]) -> None:
    """Make the kernel drop every SYN for these sockets in all processes. Queued connections stay."""
    program = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in DROP_SYN))
    for one in bound:
        with suppress(OSError):  # A kernel without this feature resets them.
            one.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(DROP_SYN), program.buffer_info()[0])
            )


def admit_handshakes(bound: Iterable[socket.socket]) -> None:
    """Undo `refuse_handshakes`, if any process has called it."""
    for one in bound:
        with suppress(OSError):  # The filter is not set.
            one.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
