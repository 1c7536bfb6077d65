"""What a client's and an upstream's connection become after a 101: one tunnel, through which a WebSocket passes.

Bytes pass as they are. When the edge leaves, each side is told so by a close frame, exactly once, as if the other side
went away (RFC 6455 section 7.4.1): both then close as they would with anybody, and what is not closed by the end of
the drain is cut.
"""

from os import urandom
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.proxy.websocket import Frames, going_away

if TYPE_CHECKING:
    from edgeproxy.proxy.exchange import Exchange

IDLE = 3600.0
"""Seconds for which nothing may pass in either direction."""

CLOSED_WITHIN = 2.0
"""Seconds for both sides to close their connections once both have closed the WebSocket."""


class Tunnel:
    """The two directions of an exchange that has switched protocols."""

    __slots__ = ("_down", "_exchange", "_leaving", "_up")

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self._up, self._down = Frames(), Frames()
        self._leaving = False

    def up(self, data: bytes) -> None:
        """The client's bytes, to the upstream."""
        exchange = self._exchange
        exchange.client.deadline = monotonic() + IDLE
        passed = self._up.relay(data)
        if passed:
            size = len(passed) - self._up.own
            exchange.bytes_in += size
            for counter in exchange.inward:
                counter.add(size)
            exchange.server.write(passed)  # type: ignore[union-attr]
        if self._leaving:
            self._closing()

    def down(self, data: bytes) -> None:
        """The upstream's bytes, to the client."""
        exchange = self._exchange
        exchange.client.deadline = monotonic() + IDLE
        passed = self._down.relay(data)
        if passed:
            size = len(passed) - self._down.own
            exchange.bytes_out += size
            for counter in exchange.outward:
                counter.add(size)
            exchange.client.write(passed)
        if self._leaving:
            self._closing()

    def leave(self) -> None:
        """Tell both sides that the edge goes away, each as soon as no frame to it is under way.

        Where one of them has closed already the other is being told by that, and answers it; and what is no WebSocket
        cannot be told anything.
        """
        up, down = self._up, self._down
        client, server = self._exchange.client, self._exchange.server
        assert server is not None
        if self._leaving or up.closed or down.closed or up.lost or down.lost or client.ended or server.ended:
            return
        self._leaving = True
        word = down.leave(going_away())
        if word:
            client.write(word)
        word = up.leave(going_away(urandom(4)))
        if word:
            server.write(word)

    def _closing(self) -> None:
        """Something came while both sides close: who has been told, and has answered, has closed (section 7.1.1)."""
        client, server = self._exchange.client, self._exchange.server
        if not (self._up.closed and self._down.told):
            return
        # To the client this is the server, which closes the connection first; the upstream does so by itself.
        if not client.transport.is_closing():
            client.transport.write_eof()
        if self._down.closed and self._up.told:
            assert server is not None
            server.end()
            client.deadline = min(client.deadline, monotonic() + CLOSED_WITHIN)
