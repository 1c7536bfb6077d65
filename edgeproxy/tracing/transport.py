"""Transports of OTLP, and the transport over HTTP with aiohttp.

The exporters of OpenTelemetry's SDK accept its own spans only, block a thread, follow redirects and environment
proxies, and do not report how many spans a receiver rejected. A receiver is not trusted here: redirects are not
followed, an answer is read up to a bound, and each attempt has a deadline.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

import aiohttp
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from edgeproxy.base.http_answer import parse_retry_after, read_prefix
from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.trust import TlsFiles, TlsFilesError
from edgeproxy.config.tracing import TRACES_PATH, Tracing

ANSWER_BYTES_MAX: Final = 64 << 10
"""The most bytes of an answer that are read; receivers send less than a hundred."""
PEER: Final = HttpPeer("the receiver of traces", 60.0, ANSWER_BYTES_MAX, reads_prefix=True)
WHY_CHARACTERS_MAX: Final = 200
RETRIED_STATUSES: Final = frozenset((429, 502, 503, 504))
"""Statuses after which a retry may succeed (OTLP/HTTP, failures)."""
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class Outcome(NamedTuple):
    """The outcome of a request: accepted, to be retried, or neither."""

    is_accepted: bool
    may_retry: bool = False
    why: str = ""
    retry_after: float = 0.0
    """The seconds in the receiver's Retry-After."""
    rejected: int = 0
    """Spans of an accepted request that the receiver has rejected."""


class Transport(Protocol):
    """Sends requests to one receiver."""

    @property
    def endpoint(self) -> str:
        """The URL of the receiver."""

    async def send(self, request: ExportTraceServiceRequest) -> Outcome:
        """Send a request. Raises no error that a receiver or the network may cause."""

    async def close(self) -> None:
        """Close the connection."""


class HttpTransport:
    """OTLP over HTTP, in protocol buffers, on one persistent connection."""

    def __init__(self, settings: Tracing) -> None:
        self.endpoint = settings.endpoint + TRACES_PATH
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: ExportTraceServiceRequest) -> Outcome:
        """Send a request; see Transport."""
        body = request.SerializeToString()
        try:
            if self._session is None:
                self._session = await self._open()
            name = self._settings.tls.server_name
            async with self._session.post(
                self.endpoint, data=body, allow_redirects=False, server_hostname=name
            ) as answer:
                return interpret_answer(
                    answer.status, answer.headers, await read_prefix(answer.content, PEER.body_bytes_max)
                )
        except (TimeoutError, aiohttp.ClientError, OSError, TlsFilesError, ValueError) as error:
            # aiohttp raises ValueError for some answers that are no HTTP.
            return Outcome(False, True, str(error) or type(error).__name__)

    async def _open(self) -> aiohttp.ClientSession:
        settings = self._settings
        files = TlsFiles.from_settings(settings.tls)
        if settings.endpoint.startswith("https://"):
            await run_in_thread("load certificates for tracing", files.create_context)
        return open_session(
            PEER,
            seconds=settings.timeout,
            tls=files,
            headers={**settings.headers, "Content-Type": "application/x-protobuf", "Accept-Encoding": "identity"},
            auto_decompress=False,
            limit=1,
        )

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def interpret_answer(status: int, fields: Mapping[str, str], content: bytes) -> Outcome:
    """Interpret an answer over HTTP."""
    if 200 <= status < 300:
        try:
            response = ExportTraceServiceResponse.FromString(content)
        except DecodeError:
            return Outcome(True)
        return accept(response)
    seconds = parse_retry_after(fields.get("Retry-After")) or 0.0
    phrase = PHRASES.get(status, "no status that is known")
    return Outcome(False, status in RETRIED_STATUSES, f"it answers {status} ({phrase})", seconds)


def accept(response: ExportTraceServiceResponse) -> Outcome:
    """Return how many spans a receiver has accepted."""
    return Outcome(True, rejected=max(0, response.partial_success.rejected_spans))
