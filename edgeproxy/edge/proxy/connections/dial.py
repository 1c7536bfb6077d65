"""Connections to upstream endpoints over TCP or TLS."""

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.edge.proxy.transport.socket_input import read_remaining
from edgeproxy.edge.proxy.transport.tls import TlsTransport

if TYPE_CHECKING:
    from edgeproxy.base.client_tls import ClientTls
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.transport.turns import Turns
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint


class HandshakeError(Exception):
    """The TLS handshake with an upstream failed.

    `why` is the TLS error, or None if the upstream closed the connection without sending one.
    """

    def __init__(self, why: BaseException | None) -> None:
        super().__init__(why)
        self.why = why


async def dial(
    endpoint: "Endpoint",
    server: asyncio.Protocol,
    upstream_tls: "ClientTls | None",
    runtime: "Runtime",
    opening: bytes = b"",
) -> None:
    """Connect `server` to `endpoint`, with TLS if `upstream_tls` is given. Send `opening` first, before TLS.

    Closes the socket if the caller cancels. Raises OSError if the connection fails, and HandshakeError if TLS fails.
    """
    loop = asyncio.get_running_loop()
    if upstream_tls is None:
        transport, _ = await loop.create_connection(lambda: server, endpoint.address, endpoint.port)
        if opening:
            transport.write(opening)
        runtime.write_batching.add(transport)
        return
    dialled = DialedTransport(endpoint, server, upstream_tls, runtime.turns, opening)
    transport, _ = await loop.create_connection(lambda: dialled, endpoint.address, endpoint.port)
    try:
        await dialled.handshake
    except asyncio.CancelledError:
        dialled.abort()
        raise
    runtime.write_batching.add(transport)


class DialedTransport(TlsTransport):
    """The TLS transport of a client connection to an upstream endpoint."""

    __slots__ = ("_client_tls", "_context", "_key", "_opening", "_server", "handshake")

    def __init__(
        self,
        endpoint: "Endpoint",
        server: asyncio.Protocol,
        client_tls: "ClientTls",
        turns: "Turns",
        opening: bytes = b"",
    ) -> None:
        """`opening`: bytes to send before the handshake."""
        self._opening = opening
        name = client_tls.server_name or endpoint.host
        self._client_tls, self._context, self._server = client_tls, client_tls.context, server
        self._key = (name, endpoint.address, endpoint.port)
        self.handshake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session = client_tls.sessions.get(self._key)
        super().__init__(self._context, turns, server_side=False, server_hostname=name, session=session)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self._opening:
            transport.write(self._opening)
        super().connection_made(transport)

    def on_handshake_done(self) -> asyncio.Protocol:
        """Report success and return the protocol that reads decrypted data.

        The TLS context has verified the certificate against the configured name by now.
        """
        if not self.handshake.done():
            self.handshake.set_result(None)
        return self._server

    def on_handshake_failed(self, why: BaseException | None) -> None:
        """Raise HandshakeError in the task that awaits `handshake`."""
        if not self.handshake.done():
            self.handshake.set_exception(HandshakeError(why))

    def connection_lost(self, exc: Exception | None) -> None:
        self.process_backlog()
        if isinstance(exc, OSError):
            # The write failed, but the upstream may have answered before it closed: read the rest of its answer.
            last = read_remaining(self._plain)
            if last:
                self.data_received(last)
        if self._protocol is not None and self._client_tls.context is self._context:
            # TLS 1.3 sends session tickets after the handshake, so the session is complete only at the end.
            self._client_tls.keep(self._key, self._tls.session)
        super().connection_lost(exc)
