"""Batches over HTTP, and reports beside them, of traffic and of limits: `POST /v1/batches` and others."""

import asyncio
import os
import ssl
from collections.abc import Mapping

import aiohttp
import orjson
import zstandard

from edgeproxy.base.http_answer import parse_retry_after
from edgeproxy.base.http_peer import DEFAULT_FILES, HttpPeer, open_session
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.trust import TlsFiles
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.wire.batch import Batch, format_headers

PATH = "/v1/batches"
NO_FIELDS: Mapping[str, str] = {}
CONNECT_SECONDS = 5.0
ATTEMPT_SECONDS = 60.0
"""Seconds to connect, and for the whole of an attempt."""
REPORT_SECONDS = 10.0
"""Seconds for sending a report at most; a batch must not wait longer for it."""
PEER = HttpPeer("the collector", ATTEMPT_SECONDS, 64 << 10, CONNECT_SECONDS)
ZSTD_LEVEL = 3
THREAD_BYTES_MIN = 64 << 10
"""Bodies of at least these bytes are compressed in a thread, because that takes a millisecond."""


class UnansweredError(OSError):
    """No answer came, or none in HTTP; the text describes the failure."""


class HttpTransport:
    """A `ship.Send` to the collector at `url`, for example http://127.0.0.1:9100, on one connection that is kept.

    `token`: empty for none. `tls`: for https. `server_name`: the name in the certificate if it differs from the host's.
    `connect` and `total` in seconds.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        tls: ssl.SSLContext | TlsFiles = DEFAULT_FILES,
        server_name: str | None = None,
        connect: float = CONNECT_SECONDS,
        total: float = ATTEMPT_SECONDS,
    ) -> None:
        self._url = url.rstrip("/")
        self._fields = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token:
            self._fields["Authorization"] = f"Bearer {token}"
        self._tls = tls
        self._server_name = server_name
        self._timeout = aiohttp.ClientTimeout(total=total, connect=connect)
        self._squeeze = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, batch: Batch, body: bytes, beside: Mapping[str, str] = NO_FIELDS) -> Reply:
        """Send it, zstd-compressed, with these fields `beside` its own.

        Raises OSError or TimeoutError without an answer. Redirects are not followed.
        """
        squeeze = self._squeeze.compress
        sent = squeeze(body) if len(body) < THREAD_BYTES_MIN else await asyncio.to_thread(squeeze, body)
        fields = {"Content-Encoding": "zstd", **format_headers(batch, body), **beside}
        return await self._post(PATH, sent, fields, self._timeout)

    async def send_report(self, edge: str, path: str, report: JsonObject) -> Reply:
        """Send a report of an edge. Raises as a batch does."""
        limits = aiohttp.ClientTimeout(total=REPORT_SECONDS, connect=self._timeout.connect)
        return await self._post(path, orjson.dumps(report), {"Edge-Id": edge}, limits)

    async def _post(self, path: str, body: bytes, fields: Mapping[str, str], limits: aiohttp.ClientTimeout) -> Reply:
        if self._session is None:
            self._session = self._open()
        try:
            async with self._session.post(
                self._url + path,
                data=body,
                headers={**self._fields, **fields},
                allow_redirects=False,
                server_hostname=self._server_name,
                timeout=limits,
            ) as answer:
                content = await answer.read()
                return Reply(answer.status, content, parse_retry_after(answer.headers.get("Retry-After")))
        except TimeoutError as error:
            raise TimeoutError(str(error) or "no answer in time") from None
        except aiohttp.ClientError as error:
            raise UnansweredError(describe_error(error)) from error

    def _open(self) -> aiohttp.ClientSession:
        return open_session(PEER, tls=self._tls, auto_decompress=False, limit=1)  # Each call has its own timeout.

    async def close(self) -> None:
        """Close the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def describe_error(failure: aiohttp.ClientError) -> str:
    """Describe the failure. If no connection was made, aiohttp mentions TLS even without any."""
    if isinstance(failure, aiohttp.ClientConnectorError) and not isinstance(failure.os_error, ssl.SSLError):
        cause = failure.os_error
        why = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror
        host = f"[{failure.host}]" if ":" in failure.host else failure.host
        return f"{host}:{failure.port}: {why or cause}"
    return str(failure) or type(failure).__name__
