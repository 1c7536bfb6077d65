"""Opening connections to upstreams: TCP, and TLS over it where the endpoint has it."""

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.edge.proxy.socket_input import read_remaining
from edgeproxy.edge.proxy.tls_transport import TlsTransport

if TYPE_CHECKING:
    from edgeproxy.base.client_tls import ClientTls
    from edgeproxy.edge.proxy.pool import Endpoint


class HandshakeError(Exception):
    """TLS with an upstream came to nothing; `why` is None where it closed the connection without a word of TLS."""

    def __init__(self, why: BaseException | None) -> None:
        super().__init__(why)
        self.why = why


async def dial(endpoint: "Endpoint", server: asyncio.Protocol, upstream_tls: "ClientTls | None") -> None:
    """Connect `server` to its endpoint, under TLS if `outward` is given.

    Raises OSError, or HandshakeFailed; cancelled, it leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    if upstream_tls is None:
        transport, _ = await loop.create_connection(lambda: server, endpoint.address, endpoint.port)
        transport.set_write_buffer_limits(0)  # As those of clients: see Acceptor.
        return
    dialled = DialedTransport(endpoint, server, upstream_tls)
    await loop.create_connection(lambda: dialled, endpoint.address, endpoint.port)
    try:
        await dialled.done
    except asyncio.CancelledError:
        dialled.abort()
        raise


class DialedTransport(TlsTransport):
    """A connection to an upstream under TLS."""

    __slots__ = ("_context", "_key", "_outward", "_server", "done")

    def __init__(self, endpoint: "Endpoint", server: asyncio.Protocol, outward: "ClientTls") -> None:
        name = outward.server_name or endpoint.host
        self._outward, self._context, self._server = outward, outward.context, server
        self._key = (name, endpoint.address, endpoint.port)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session = outward.sessions.get(self._key)
        super().__init__(self._context, server_side=False, server_hostname=name, session=session)

    def established(self) -> asyncio.Protocol:
        """TLS is there, and whoever speaks it is whom the configuration names."""
        if not self.done.done():
            self.done.set_result(None)
        return self._server

    def failed(self, why: BaseException | None) -> None:
        """There will be no connection."""
        if not self.done.done():
            self.done.set_exception(HandshakeError(why))

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            # What was to be sent could not be; what had come by then may be an answer.
            last = read_remaining(self._plain)
            if last:
                self.data_received(last)
        if self._protocol is not None and self._outward.context is self._context:
            # The ticket came after the handshake: only now is it certain to be there.
            self._outward.keep(self._key, self._tls.session)
        super().connection_lost(exc)
