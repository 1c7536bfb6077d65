"""The first bytes of a connection without TLS, where the listener speaks HTTP/2 as well (RFC 9113 section 3.3).

A client that knows so begins with the preface. Everybody else speaks HTTP/1.1 from the first byte that differs.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, cast

from edgeproxy.edge.http2.frames import PREFACE
from edgeproxy.edge.proxy.client import LAST_REQUEST_SECONDS, Client
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.http2_client import Http2Client

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.runtime import Runtime


class FirstBytes(asyncio.Protocol):
    """A connection before it is known which of the two its client speaks."""

    __slots__ = ("_data", "_peer", "_runtime", "_transport", "deadline", "subject")

    def __init__(self, runtime: "Runtime", peer: str, subject: bytes) -> None:
        self._runtime, self._peer, self.subject = runtime, peer, subject
        self._data = b""
        self.deadline = monotonic() + runtime.snapshot.header_timeout

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._runtime.connections.add_handshake(self)

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        is_http2 = data.startswith(PREFACE)
        if not is_http2 and PREFACE.startswith(data):
            self._data = data
            return
        self._runtime.connections.remove_handshake(self)
        client = (Http2Client if is_http2 else Client)(self._runtime, self._peer, self.subject)
        self._transport.set_protocol(cast("asyncio.Protocol", client))
        client.connection_made(self._transport)
        client.data_received(data)

    def drain(self) -> None:
        """Give it no longer than an idle connection has for a last request."""
        self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    def on_timeout(self) -> None:
        """Close a connection over which nothing came in time."""
        self.deadline = NEVER
        self._transport.abort()

    def abort(self) -> None:
        """Reset the connection at once."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.connections.remove_handshake(self, gone=True)
