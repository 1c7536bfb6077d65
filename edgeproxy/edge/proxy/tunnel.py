"""What a client's and an upstream's connection become after a 101: one tunnel, through which a WebSocket passes,
or what else the route allows.

Bytes pass as they are. When the edge leaves, each side is told so by a close frame, exactly once, as if the other side
went away (RFC 6455 section 7.4.1): both then close as they would with anybody, and what is not closed by the end of
the drain is cut.
"""

import asyncio
from collections.abc import Callable
from os import urandom
from time import monotonic
from typing import Protocol

from edgeproxy.edge.proxy.metering import Countable
from edgeproxy.edge.proxy.websocket import GOING_AWAY, FrameRelay, format_close_frame

IDLE_SECONDS = 3600.0
"""Seconds for which nothing may pass in either direction."""

CLOSE_SECONDS = 2.0
"""Seconds for both sides to close their connections once both have closed the WebSocket."""


class Traffic(Protocol):
    """Where the bytes of both directions are counted."""

    bytes_in: int
    bytes_out: int

    @property
    def inward(self) -> tuple[Countable, ...]:
        """What the client's bytes are added to."""

    @property
    def outward(self) -> tuple[Countable, ...]:
        """What the upstream's bytes are added to."""


class TunnelEnd(Protocol):
    """One of the two connections."""

    @property
    def ended(self) -> bool:
        """Whether the peer has closed its side."""

    @property
    def write(self) -> Callable[[bytes | memoryview], None]:
        """Send these bytes."""


class TunnelClient(TunnelEnd, Protocol):
    """The client's connection. Its deadline, in seconds of the monotonic clock, is that of the tunnel."""

    deadline: float

    @property
    def transport(self) -> asyncio.Transport:
        """Its socket."""


class TunnelUpstream(TunnelEnd, Protocol):
    """The upstream's connection."""

    def end(self) -> None:
        """Close the edge's side."""


class Tunnel:
    """The two directions of an exchange that has switched protocols."""

    __slots__ = ("_client", "_down", "_leaving", "_traffic", "_up", "_upstream")

    def __init__(
        self, traffic: Traffic, client: TunnelClient, upstream: TunnelUpstream, *, framed: bool = True
    ) -> None:
        """`framed`: what passes is a WebSocket. Of another protocol nothing is read."""
        self._traffic, self._client, self._upstream = traffic, client, upstream
        self._up, self._down = FrameRelay(), FrameRelay()
        self._up.lost = self._down.lost = not framed
        self._leaving = False

    def up(self, data: bytes) -> None:
        """The client's bytes, to the upstream."""
        traffic = self._traffic
        self._client.deadline = monotonic() + IDLE_SECONDS
        passed = self._up.relay(data)
        if passed:
            size = len(passed) - self._up.own
            traffic.bytes_in += size
            for counter in traffic.inward:
                counter.add(size)
            self._upstream.write(passed)
        if self._leaving:
            self._close_when_answered()

    def down(self, data: bytes) -> None:
        """The upstream's bytes, to the client."""
        traffic = self._traffic
        self._client.deadline = monotonic() + IDLE_SECONDS
        passed = self._down.relay(data)
        if passed:
            size = len(passed) - self._down.own
            traffic.bytes_out += size
            for counter in traffic.outward:
                counter.add(size)
            self._client.write(passed)
        if self._leaving:
            self._close_when_answered()

    def leave(self, code: int = GOING_AWAY) -> None:
        """Tell both sides that the edge goes away, each as soon as no frame to it is under way, the client by `code`.

        Where one of them has closed already the other is being told by that, and answers it; and what is no WebSocket
        cannot be told anything.
        """
        up, down = self._up, self._down
        client, upstream = self._client, self._upstream
        if self._leaving or up.closed or down.closed or up.lost or down.lost or client.ended or upstream.ended:
            return
        self._leaving = True
        word = down.leave(format_close_frame(code=code))
        if word:
            client.write(word)
        word = up.leave(format_close_frame(urandom(4)))
        if word:
            upstream.write(word)

    def _close_when_answered(self) -> None:
        """Something came while both sides close: who has been told, and has answered, has closed (section 7.1.1)."""
        client = self._client
        if not (self._up.closed and self._down.close_sent):
            return
        # To the client this is the server, which closes the connection first; the upstream does so by itself.
        if not client.transport.is_closing():
            client.transport.write_eof()
        if self._down.closed and self._up.close_sent:
            self._upstream.end()
            client.deadline = min(client.deadline, monotonic() + CLOSE_SECONDS)
