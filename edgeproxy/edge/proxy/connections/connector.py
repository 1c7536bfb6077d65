"""New connections for exchanges. Every failure becomes an error for the client and a line in the log."""

import asyncio
import errno
from time import monotonic
from typing import TYPE_CHECKING, cast

from edgeproxy.base import log
from edgeproxy.base.trust import format_tls_error
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.connections.dial import HandshakeError, dial
from edgeproxy.edge.proxy.connections.http2_upstream import Http2Pool
from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
from edgeproxy.edge.proxy.exchange.runtime import Runtime
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.proxy_header import format_proxy_header
from edgeproxy.edge.proxy.transport.server_tls import classify_tls_error

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""Errors of a host without resources for a connection: they are not the upstream's fault."""


class UpstreamConnector:
    """Opens the upstream connections of one worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._http2 = Http2Pool(runtime)
        self._log = log.get_logger()

    def connect(self, exchange: Forwarding) -> None:
        """Open a connection for this exchange and send its request over it."""
        exchange.client.deadline = NEVER  # The connection attempt has a deadline of its own.
        exchange.waiting_since = monotonic()
        self._runtime.tasks.start("connect", self._connect(exchange))

    async def _connect(self, exchange: Forwarding) -> None:
        client = exchange.client
        while client.exchange is exchange:
            endpoint = exchange.endpoint
            assert endpoint is not None
            service = endpoint.service
            try:
                async with asyncio.timeout(service.connect_timeout):
                    server = UpstreamConnection(self._runtime, endpoint)
                    tls = exchange.snapshot.upstream_tls[service.name] if endpoint.scheme == "https" else None
                    if service.speaks_http2:
                        await self._http2.open_stream(server, tls)
                    else:
                        protocol = cast("asyncio.Protocol", server)
                        version = service.proxy_protocol
                        opening = format_proxy_header(version, client.address.text) if version else b""
                        await dial(endpoint, protocol, tls, self._runtime, opening)
            except Exception as error:
                failure, why = self._describe_failure(endpoint, error)
            else:
                exchange.on_connected(server)
                return
            # The endpoint and the reason are for the operator, not for the client.
            about, request_id = f"{endpoint.host}:{endpoint.port}", exchange.get_request_id().decode()
            self._runtime.endpoint_log.error("upstream unreachable", about, why=why, request_id=request_id)
            if client.exchange is exchange and not exchange.on_unreachable(failure):
                return

    def _describe_failure(self, endpoint: "Endpoint", error: Exception) -> tuple[UpstreamError, str]:
        """Return the error for the client, and the reason for the log."""
        if isinstance(error, TimeoutError):
            detail = "The upstream did not take the connection in time"
            failure = UpstreamError("connection_timeout", detail, status=504)
            return failure, f"no connection within {endpoint.service.connect_timeout:g} s"
        if isinstance(error, HandshakeError):
            failure = UpstreamError(classify_tls_error(error.why), "TLS with the upstream could not be agreed on")
            return failure, format_tls_error(error.why)
        if isinstance(error, OSError):
            if error.errno in OUT_OF_RESOURCES:
                detail = "The edge has no connection to spare"
                return UpstreamError("proxy_internal_error", detail, status=503, is_local=True), str(error)
            return UpstreamError("connection_refused", "The upstream could not be connected to"), str(error)
        # Any other exception must reach the client too, or it would wait in vain.
        self._log.error("connecting failed", endpoint=f"{endpoint.host}:{endpoint.port}", exc_info=error)
        detail = "The edge could not connect to the upstream"
        return UpstreamError("proxy_internal_error", detail, is_local=True), repr(error)
