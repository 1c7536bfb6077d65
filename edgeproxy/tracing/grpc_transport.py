"""OTLP over gRPC, by the client of opentelemetry-proto."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from edgeproxy.base.outgoing_proxy import OutgoingProxy, describe_way, find_proxy
from edgeproxy.base.trust import Stamps, read_bundle, stamp_files
from edgeproxy.config.tracing import Tracing
from edgeproxy.tracing.transport import ANSWER_BYTES_MAX, WHY_CHARACTERS_MAX, Outcome, accept

if TYPE_CHECKING:
    from edgeproxy.config.tls import UpstreamTls

RETRIED_CODES: Final = frozenset(
    (
        *("CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "OUT_OF_RANGE"),
        *("UNAVAILABLE", "DATA_LOSS"),
    )
)
"""gRPC status codes of calls that may succeed on a retry (OTLP/gRPC, failures)."""
UNREACHED_CODES: Final = frozenset(("UNAVAILABLE", "DEADLINE_EXCEEDED"))
"""Codes that gRPC itself gives a call that reached no server."""


class GrpcTransport:
    """OTLP over gRPC, on one channel."""

    def __init__(self, settings: Tracing) -> None:
        self.endpoint = settings.endpoint
        self._settings = settings
        self._metadata = tuple((name.lower(), text) for name, text in settings.headers.items())
        self._channel: grpc.aio.Channel | None = None
        self._opened: tuple[Stamps, OutgoingProxy | None] = ((), None)
        """The state of the files, and the proxy, that the channel was opened with."""

    async def send(self, request: ExportTraceServiceRequest) -> Outcome:
        """Send a request; see Transport."""
        try:
            stub = TraceServiceStub(await self._get_channel())
            response = await stub.Export(request, timeout=self._settings.timeout, metadata=self._metadata)
            # grpcio returns None for an answer that is no message. The receiver has accepted the request nevertheless.
            return Outcome(True) if response is None else accept(response)
        except grpc.aio.AioRpcError as error:
            name, details = error.code().name, str(error.details())[:WHY_CHARACTERS_MAX]
            way = describe_way(self.endpoint) if name in UNREACHED_CODES else ""
            return Outcome(False, name in RETRIED_CODES, f"it answers {name}{way}: {details}")
        except (OSError, ValueError) as error:  # Of certificate files.
            return Outcome(False, True, str(error))

    async def _get_channel(self) -> grpc.aio.Channel:
        """Return the channel. It is a new one if files or the proxy have changed, because a channel keeps them."""
        tls = self._settings.tls
        stamps = await asyncio.to_thread(stamp_files, tls.ca, tls.cert, tls.key)
        now = stamps, find_proxy(self.endpoint)
        if now != self._opened:
            await self.close()
        if self._channel is None:
            self._channel, self._opened = await self._open(now[1]), now
        return self._channel

    async def _open(self, proxy: OutgoingProxy | None) -> grpc.aio.Channel:
        settings = self._settings
        target = urlsplit(settings.endpoint).netloc
        options: tuple[tuple[str, str | int], ...] = (
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),
        )
        if proxy is not None:
            options = (*options[:1], ("grpc.http_proxy", proxy.full_url))
        if settings.endpoint.startswith("https://"):
            files = await asyncio.to_thread(read_files, settings.tls)
            if settings.tls.server_name is not None:
                options += (("grpc.ssl_target_name_override", settings.tls.server_name),)
            return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*files), options=options)
        return grpc.aio.insecure_channel(target, options=options)

    async def close(self) -> None:
        """Close the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)


def read_files(tls: "UpstreamTls") -> tuple[bytes | None, bytes | None, bytes | None]:
    """Read (authorities, own key, own certificate), as gRPC wants them. Raises OSError."""

    def read(file: Path | None) -> bytes | None:
        return None if file is None else file.read_bytes()

    return read_bundle() if tls.ca is None else read(tls.ca), read(tls.key), read(tls.cert)
