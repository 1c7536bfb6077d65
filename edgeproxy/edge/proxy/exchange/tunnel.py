"""The tunnel that two connections become after a 101: for a WebSocket, or for another protocol.

Bytes pass unchanged. When the edge drains, it sends each side one close frame, as if the other side went away (RFC 6455
section 7.4.1). Both sides then answer and close. A connection that is still open at the end of the drain is cut.
"""

from collections.abc import Callable
from os import urandom
from time import monotonic
from typing import Protocol

from edgeproxy.edge.proxy.metering.meters import Countable
from edgeproxy.edge.proxy.transport.websocket import GOING_AWAY, POLICY_VIOLATION, FrameRelay, format_close_frame

CLOSE_SECONDS = 2.0
"""Seconds for both sides to close their connections. They count from the moment when both have closed the WebSocket,
when the edge has sent close frames because of silence, or when the client has closed its side.
"""


class Traffic(Protocol):
    """The counts of the bytes of both directions."""

    bytes_in: int
    bytes_out: int

    @property
    def request_counters(self) -> tuple[Countable, ...]:
        """The counters of the client's bytes."""

    @property
    def response_counters(self) -> tuple[Countable, ...]:
        """The counters of the upstream's bytes."""


class TunnelEnd(Protocol):
    """One of the two connections."""

    @property
    def half_closed(self) -> bool:
        """True if the peer has closed its side."""

    @property
    def write(self) -> Callable[[bytes | memoryview], None]:
        """Send these bytes."""

    def half_close(self) -> None:
        """Close the edge's side."""


class TunnelClient(TunnelEnd, Protocol):
    """The client's connection. Its deadline, in monotonic seconds, is the tunnel's deadline."""

    deadline: float


class TunnelUpstream(TunnelEnd, Protocol):
    """The upstream's connection."""


class SessionReader(Protocol):
    """A reader of the usage that the messages of a WebSocket state."""

    def feed(self, data: bytes) -> bool:
        """Read the upstream's next bytes. Return whether a limit that they are charged to is exhausted."""


class Tunnel:
    """The two directions of an exchange that has switched protocols."""

    __slots__ = (
        "_client",
        "_down",
        "_idle_seconds",
        "_is_ending",
        "_is_framed",
        "_leaving",
        "_traffic",
        "_up",
        "_upstream",
        "messages",
    )

    def __init__(
        self,
        traffic: Traffic,
        client: TunnelClient,
        upstream: TunnelUpstream,
        idle_seconds: float,
        *,
        framed: bool = True,
    ) -> None:
        """`idle_seconds`: the maximum of silence in both directions.

        `framed`: the protocol is WebSocket, whose frames are followed; the bytes of other protocols are not read.
        """
        self._idle_seconds, self._is_framed = idle_seconds, framed
        self._is_ending = False
        """True if the tunnel ends by the client's deadline, even while data flows."""
        self._traffic, self._client, self._upstream = traffic, client, upstream
        self._up, self._down = FrameRelay(), FrameRelay()
        self._up.is_opaque = self._down.is_opaque = not framed
        self._leaving = False
        self.messages: SessionReader | None = None
        """The reader of the usage that the upstream's messages state, if that is counted."""

    @property
    def is_opaque(self) -> bool:
        """True if bytes pass unread in both directions: the protocol is not WebSocket, or its frames are lost."""
        return self._up.is_opaque and self._down.is_opaque

    def relay_up(self, data: bytes) -> None:
        """Relay the client's bytes to the upstream."""
        traffic = self._traffic
        if not self._is_ending:
            self._client.deadline = monotonic() + self._idle_seconds
        passed = self._up.relay(data)
        if passed:
            size = len(passed) - self._up.own_bytes
            traffic.bytes_in += size
            for counter in traffic.request_counters:
                counter.add(size)
            self._upstream.write(passed)
        if self._leaving:
            self._close_when_answered()

    def relay_down(self, data: bytes) -> None:
        """Relay the upstream's bytes to the client."""
        traffic = self._traffic
        if not self._is_ending:
            self._client.deadline = monotonic() + self._idle_seconds
        # The usage counts before the last of a message is passed on, and the session ends after that.
        is_last = self.messages is not None and self.messages.feed(data)
        passed = self._down.relay(data)
        if passed:
            size = len(passed) - self._down.own_bytes
            traffic.bytes_out += size
            for counter in traffic.response_counters:
                counter.add(size)
            self._client.write(passed)
        if is_last:
            self.send_close(POLICY_VIOLATION)
        if self._leaving:
            self._close_when_answered()

    def send_close(self, code: int = GOING_AWAY) -> None:
        """Send a close frame to each side as soon as no other frame to it is in progress; `code` is the client's
        status.

        Nothing is sent if a side has closed already, because its own close frame passes to the other side, or if the
        protocol is not WebSocket.
        """
        up, down = self._up, self._down
        client, upstream = self._client, self._upstream
        if (
            self._leaving
            or up.closed
            or down.closed
            or up.is_opaque
            or down.is_opaque
            or client.half_closed
            or upstream.half_closed
        ):
            return
        self._leaving = True
        frame = down.insert_close(format_close_frame(code=code))
        if frame:
            client.write(frame)
        # A client masks its frames (RFC 6455 section 5.3), and the edge is the client of the upstream.
        frame = up.insert_close(format_close_frame(urandom(4)))
        if frame:
            upstream.write(frame)

    def end_idle(self) -> bool:
        """Send both sides a close frame after too much silence.

        Return False if none can be sent, or if the time to answer it is over.
        """
        if self._is_ending:
            return False
        self.send_close()
        self._is_ending = self._leaving
        self._client.deadline = monotonic() + CLOSE_SECONDS
        return self._is_ending

    def on_client_closed(self) -> None:
        """Close the edge's side to the upstream, because the client has closed its own.

        WebSockets are never half-closed (RFC 6455 section 7.1.1): the client has left, and the upstream has a moment
        for its last bytes. Other protocols may continue in one direction.
        """
        self._upstream.half_close()
        if self._is_framed and not self._is_ending:
            self._is_ending = True
            self._client.deadline = monotonic() + CLOSE_SECONDS

    def _close_when_answered(self) -> None:
        """Close the connections once both sides have sent and received a close frame (RFC 6455 section 7.1.1)."""
        client = self._client
        if not (self._up.closed and self._down.close_sent):
            return
        # The edge is the client's server, and the server closes first; the upstream does so by itself.
        client.half_close()
        if self._down.closed and self._up.close_sent:
            self._upstream.half_close()
            client.deadline = min(client.deadline, monotonic() + CLOSE_SECONDS)
