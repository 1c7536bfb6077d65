"""New connections for exchanges: every way in which opening one can fail becomes a fault, and a line in the log."""

import asyncio
import errno
from time import monotonic

from edgeproxy.base import log
from edgeproxy.base.client_tls import format_tls_error
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.dial import HandshakeError, dial
from edgeproxy.edge.proxy.exchange import Exchange
from edgeproxy.edge.proxy.runtime import Runtime
from edgeproxy.edge.proxy.server_tls import classify_tls_error
from edgeproxy.edge.proxy.upstream_connection import UpstreamConnection

OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""The errors of a host that lacks something for a connection: no upstream is to blame."""


class UpstreamConnector:
    """Opens the upstream connections of one worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._log = log.get_logger()

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for this exchange and send its request over it."""
        exchange.client.deadline = NEVER  # The connection attempt has a deadline of its own.
        exchange.waiting_since = monotonic()
        self._runtime.tasks.start("connect", self._connect(exchange))

    async def _connect(self, exchange: Exchange) -> None:
        client = exchange.client
        while client.exchange is exchange:
            endpoint = exchange.endpoint
            assert endpoint is not None
            service = endpoint.service
            try:
                async with asyncio.timeout(service.connect_timeout):
                    server = UpstreamConnection(self._runtime, endpoint)
                    tls = exchange.snapshot.upstream_tls[service.name] if endpoint.scheme == "https" else None
                    await dial(endpoint, server, tls)
            except TimeoutError:
                failure = UpstreamError(
                    "connection_timeout", "The upstream did not take the connection in time", status=504
                )
                why = f"no connection within {service.connect_timeout:g} s"
            except HandshakeError as error:
                failure = UpstreamError(classify_tls_error(error.why), "TLS with the upstream could not be agreed on")
                why = format_tls_error(error.why)
            except OSError as error:
                failure = UpstreamError("connection_refused", "The upstream could not be connected to")
                if error.errno in OUT_OF_RESOURCES:
                    failure = UpstreamError(
                        "proxy_internal_error", "The edge has no connection to spare", status=503, is_local=True
                    )
                why = str(error)
            except Exception as error:
                # Nobody else would ever tell the client.
                self._log.exception("connecting failed", endpoint=f"{endpoint.host}:{endpoint.port}")
                failure = UpstreamError(
                    "proxy_internal_error", "The edge could not connect to the upstream", is_local=True
                )
                why = repr(error)
            else:
                exchange.on_connected(server)
                return
            # Which endpoint, and why, is the operator's business and not the client's.
            about, request_id = f"{endpoint.host}:{endpoint.port}", exchange.get_request_id().decode()
            self._runtime.endpoint_log.error("upstream unreachable", about, why=why, request_id=request_id)
            if client.exchange is exchange:
                exchange.on_unreachable(failure)
