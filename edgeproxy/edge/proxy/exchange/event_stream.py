"""Answers that may be silent for any time: server-sent events.

A stream without events looks like one whose server is gone. The kernel can tell them apart, because it probes the other
host.
"""

import asyncio
import re
import socket
from typing import Final

EVENT_STREAM: Final = re.compile(rb"\r\ncontent-type[ \t]*:[ \t]*text/event-stream[ \t]*[;\r]", re.IGNORECASE)

KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""After a minute without a byte the kernel probes the other host, three times within half a minute (tcp(7))."""


def is_event_stream(lines: bytes) -> bool:
    """Return whether the lines of an answer's head, each with its CRLF, announce an event stream."""
    return EVENT_STREAM.search(lines) is not None


def enable_keep_alive(*transports: asyncio.Transport) -> None:
    """Enable TCP keep-alive, which closes each connection whose peer is gone."""
    for transport in transports:
        end = transport.get_extra_info("socket")
        for option in KEEP_ALIVE:
            end.setsockopt(*option)
