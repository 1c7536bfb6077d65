"""HTTP servers that edgeproxy calls: every response has bounds in bytes, fields, interim responses and time.

aiohttp alone reads interim responses (RFC 9110 section 15.2) without a bound, stores all of them, and parses them
without a pause. So one peer could block the whole process. A connection of this module parses for TURN_SECONDS at
most, and then other connections have a turn. A connection closes when a response exceeds a bound.
"""

import asyncio
import functools
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from edgeproxy.base import log
from edgeproxy.base.outgoing_proxy import OutgoingProxy, find_proxy
from edgeproxy.base.trust import TlsFiles, TlsFilesError, format_tls_error

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

BLANK: Final = b"\r\n\r\n"
PIECE_BYTES: Final = 8 << 10
"""Bytes that are parsed between two checks of bounds and time."""
TURN_SECONDS: Final = 0.005
"""Seconds that one connection may parse before other connections have a turn."""
HEAD_BYTES_MAX: Final = 64 << 10
"""Bytes of the head of a response, including all interim responses before it."""
INTERIM_ANSWERS_MAX: Final = 32
FIELDS_MAX: Final = 128
"""Fields of a header section, and of a trailer section."""
FIELD_BYTES_MAX: Final = 8 << 10
TUNNEL_SECONDS_MAX: Final = 10.0
"""Seconds until the site's proxy has opened a tunnel. A call with less time gives the proxy TUNNEL_SHARE of it."""
TUNNEL_SHARE: Final = 0.9
"""The rest of a call's time lets the error of the proxy come before the timeout of the call, which names nobody."""
PROXY_AUTHENTICATION_REQUIRED: Final = 407
"""RFC 9110 section 15.5.8."""
FRAMING_FACTOR: Final = 8
"""Bytes on the wire for each permitted byte of a body. A body in chunks of one byte takes six times as many bytes on
the wire."""


DEFAULT_FILES: Final = TlsFiles()
"""The trusted authorities, and no certificate of the client."""
FindTarget = Callable[[str, int], Awaitable[str]]
"""Checks and returns the address of a host and port for a request to a proxy. Raises OSError."""


class AnswerBoundError(aiohttp.ClientPayloadError):
    """A response exceeded a bound. The text names the peer and the bound."""


class OutgoingProxyError(aiohttp.ClientConnectionError):
    """The site's proxy passed no request on. The text names the proxy and its setting, and has no password."""

    def __init__(self, proxy: OutgoingProxy, problem: str, status: int | None = None) -> None:
        super().__init__(f"{proxy.title} {problem}")
        self.problem = problem
        """The problem alone, for readers who must not learn the proxy's address."""
        self.status = status
        """The status of the proxy's answer, if it is an error."""


class HttpPeer(NamedTuple):
    """A kind of server that edgeproxy calls, and the bounds of its responses."""

    name: str
    """The name in error messages, for example "the collector"."""
    seconds_max: float
    """Seconds for a whole call, from the lookup of the name to the last byte."""
    body_bytes_max: int
    """Bytes of a body after decompression."""
    connect_seconds_max: float | None = None
    """The part of `seconds_max` for the connection and its TLS handshake. None: all of it."""
    leaves_site: bool = True
    """True if calls use the site's proxy, if there is one."""
    reads_prefix: bool = False
    """True: the first `body_bytes_max` bytes of a longer body are enough. False: a longer body is an error."""
    head_bytes_max: int = HEAD_BYTES_MAX
    """Bytes of the head."""
    fields_max: int = FIELDS_MAX
    """Fields of a header section, and of a trailer section."""
    field_bytes_max: int = FIELD_BYTES_MAX
    """Bytes of each line."""

    def bound_by_head(self, head_bytes_max: int) -> "HttpPeer":
        """Return the peer with this bound of each head and without a bound of fields, as for upstreams."""
        return self._replace(head_bytes_max=head_bytes_max, fields_max=head_bytes_max, field_bytes_max=head_bytes_max)

    @property
    def bounds_of_parser(self) -> dict[str, str]:
        """The bounds of aiohttp's parser, by the beginning of its error messages."""
        line = f"a line of more than {self.field_bytes_max} bytes"
        return {
            "Too many headers received": f"more than {self.fields_max} fields",
            "Got more than": line if self.field_bytes_max < self.head_bytes_max else describe_head_bound(self),
        }


class BoundedResponseHandler(ResponseHandler):
    """Parses the responses of one connection within the bounds of its peer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, peer: HttpPeer) -> None:
        super().__init__(loop)
        self._peer = peer
        self._rest: memoryview | None = None
        """Received bytes that wait for the next turn. Until then the transport does not read from the socket."""
        self._turn_ends: float | None = None
        """The time of the next pause in parsing, or None before this turn's first bytes."""
        self._is_resuming = False
        """True if aiohttp resumes reading in the next turn."""
        self._is_cut = False
        self._reset_counts()

    def _reset_counts(self) -> None:
        self._has_head = False
        self._head_bytes = self._interim_answers = self._wire_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """Prepare for the response to the next request."""
        self._reset_counts()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. If `data` is empty, parse the bytes that aiohttp has held back."""
        if self._is_cut:
            return
        if not data:
            super().data_received(data)
            self._check_body()
        else:
            # Bytes wait only while the socket is paused. A transport may still deliver some afterwards.
            self._rest = memoryview(data if self._rest is None else bytes(self._rest) + data)
        self._parse_rest()

    def _has_time(self) -> bool:
        """Return whether this connection may still parse in this turn of the event loop."""
        if self._turn_ends is None:
            self._turn_ends = monotonic() + TURN_SECONDS
            self._loop.call_soon(self._begin_turn)
            return True
        return monotonic() < self._turn_ends

    def _parse_rest(self) -> None:
        """Parse piece by piece until no bytes are left, the turn is over, or aiohttp pauses reading."""
        while (rest := self._rest) is not None and not (self._is_cut or self._reading_paused) and self._has_time():
            self._rest = rest[PIECE_BYTES:] if len(rest) > PIECE_BYTES else None
            self._parse_piece(bytes(rest[:PIECE_BYTES]))
        if self._rest is not None:
            self._pause_transport_reading()

    def _begin_turn(self) -> None:
        self._turn_ends = None
        if self._is_resuming:
            self.resume_reading()
        elif self._rest is not None and not self._reading_paused:
            self._parse_rest()
            if self._rest is None and not self._reading_paused:
                self._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading. A reader as fast as the parser also waits for the next turn."""
        self._is_resuming = not self._has_time()
        if not self._is_resuming:
            super().resume_reading(resume_parser)
            if self._rest is not None:
                self._pause_transport_reading()

    def _parse_piece(self, piece: bytes) -> None:
        self._wire_bytes += len(piece)
        if not self._has_head:
            if self._head_bytes >= self._peer.head_bytes_max + len(BLANK):
                self._cut(describe_head_bound(self._peer))
                return
            self._head_bytes += len(piece)
        elif self._wire_bytes > self._peer.head_bytes_max + FRAMING_FACTOR * self._peer.body_bytes_max:
            self._cut("a body with more framing than content")
            return
        super().data_received(piece)
        self._check_body()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Check the head of a response, and pass it on."""
        message, _ = data
        if self._is_cut:
            return
        if self._has_head:  # A second response answers no request.
            self._is_cut = self._should_close = True
            self._close_transport()
            return
        if compute_head_bytes(message) > self._peer.head_bytes_max:
            self._cut(describe_head_bound(self._peer))
            return
        if 100 <= message.code < 200 and message.code != 101:
            self._interim_answers += 1
            if self._interim_answers > INTERIM_ANSWERS_MAX:
                self._cut(f"more than {INTERIM_ANSWERS_MAX} interim answers")
                return
            if self._peer.fields_max == self._peer.head_bytes_max:
                self._head_bytes = 0  # Each head has its own bound.
        else:
            self._has_head = True
        super().feed_data(data, size)

    def _check_body(self) -> None:
        payload, peer = self._payload, self._peer
        if payload is not None and not peer.reads_prefix and payload.total_bytes > peer.body_bytes_max:
            self._cut(describe_body_bound(peer))

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the call. The peer's name is added to an exceeded bound of aiohttp's parser."""
        if isinstance(exc, HttpProcessingError):
            bounds = self._peer.bounds_of_parser.items()
            bound = next((bound for text, bound in bounds if exc.message.startswith(text)), None)
            if bound is not None:
                self._cut(bound)
                return
        super().set_exception(exc, *cause)

    def _cut(self, excess: str) -> None:
        """Close the connection, and fail the call that waits for this response."""
        self._is_cut = True
        self._rest = None
        error = AnswerBoundError(f"{self._peer.name}'s answer had {excess}")
        payload = self._payload
        self._buffer.clear()
        super().set_exception(error)
        if payload is not None:
            payload.set_exception(error)
        self._close_transport()

    def _close_transport(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Parse the waiting bytes: the peer may have sent its whole response before it closed the connection."""
        while self._rest is not None and not (self._is_cut or self._reading_paused):
            self._turn_ends = monotonic() + TURN_SECONDS
            self._parse_rest()
        self._rest = None
        self._is_resuming = False
        super().connection_lost(exc)


class _Response(aiohttp.ClientResponse):
    """A response that frees its bytes when its body fails."""

    async def start(self, connection: "Connection") -> aiohttp.ClientResponse:
        """Read the head. Raises OutgoingProxyError if it is a proxy that asks for a password.

        A proxy answers itself to a request of `http://`, for which there is no tunnel.
        """
        response = await super().start(connection)
        if self.status == PROXY_AUTHENTICATION_REQUIRED and self.method != hdrs.METH_CONNECT:
            proxy = find_proxy(str(self.real_url))
            if proxy is not None:
                self.close()
                raise OutgoingProxyError(proxy, f"answers {self.status} {self.reason or ''}".rstrip(), self.status)
        return response

    async def read(self) -> bytes:
        """Return the whole body. Raises AnswerBoundError and other errors of aiohttp."""
        try:
            return await super().read()
        except aiohttp.ClientError as error:
            # The body's stream refers to the error. The frames of the traceback would keep all bytes that were read
            # until the next garbage collection.
            raise error.with_traceback(None)  # noqa: B904


_proxy_log = log.RateLimitedLog(600.0)
"""Failures of the site's proxy. Some calls tell their caller no reason, and customers see no address of the site."""


class _Tunnel:
    """A connection through the site's proxy that is being opened."""

    def __init__(self, proxy: OutgoingProxy, target: URL) -> None:
        self.proxy = proxy
        self.target = f"{target.host}:{target.port}"
        self.until: asyncio.Timeout | None = None
        """The time of the proxy; None once the proxy has done its part."""


class _Connector(aiohttp.TCPConnector):
    """Creates connections that are read within bounds."""

    def __init__(self, peer: HttpPeer, find_target: FindTarget | None, files: TlsFiles, **options: Any) -> None:
        super().__init__(**options)
        self._files = files
        self._find_target = find_target
        create_handler = functools.partial(BoundedResponseHandler, loop=self._loop, peer=peer)
        self._factory = create_handler  # type: ignore[assignment]
        self._leaves_site, self._peer_name = peer.leaves_site, peer.name
        self._tunnels: dict[int, _Tunnel] = {}
        """Connections through the proxy that are being opened, by the `id` of their request."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list["Trace"],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's
    ) -> "Connection":
        """Connect through the site's proxy if the request leaves the site, or directly."""
        proxy = find_proxy(str(req.url)) if self._leaves_site else None
        if proxy is not None:
            if self._find_target is not None:
                host = req.url.host or ""
                req.server_hostname = req.server_hostname or host
                req.url = req.url.with_host(await self._find_target(host, req.url.port or 0))
            fields: CIMultiDict[str] = CIMultiDict()
            if proxy.user is not None:
                # Not as `proxy_auth`, which the `repr` of a connection error shows.
                login = b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
                fields["Proxy-Authorization"] = f"Basic {login}"
                if not req.is_ssl():
                    req.headers.update(fields)
            req.update_proxy(URL(proxy.url), None, fields)
            self._tunnels[id(req)] = _Tunnel(proxy, req.url)
        try:
            return await super().connect(req, traces, timeout)
        except OutgoingProxyError as error:
            _proxy_log.error("a call does not pass the site's proxy", self._peer_name, why=str(error))
            raise
        finally:
            self._tunnels.pop(id(req), None)

    async def _create_proxy_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list["Trace"],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """Connect to the proxy, and through it to the target. Raises OutgoingProxyError for faults of the proxy.

        aiohttp's own errors show the fields that were sent to the proxy, and so its password.
        """
        tunnel = self._tunnels[id(req)]
        bounds = (timeout.total, timeout.connect, timeout.sock_connect)
        seconds = min((TUNNEL_SECONDS_MAX, *(bound * TUNNEL_SHARE for bound in bounds if bound)))
        status = None
        try:
            async with asyncio.timeout(seconds) as tunnel.until:
                return await super()._create_proxy_connection(req, traces, timeout)
        except aiohttp.ClientHttpProxyError as error:
            problem, status = f"answers {error.status} {error.message}".rstrip(), error.status
        except aiohttp.ClientConnectorCertificateError as error:
            if tunnel.until is None:
                raise
            problem = f"has a certificate that is not trusted: {format_tls_error(error.certificate_error)}"
        except aiohttp.ClientProxyConnectionError as error:
            problem = f"cannot be reached: {error.os_error.strerror or error.os_error}"
        except TimeoutError:
            if tunnel.until is None:
                raise
            problem = f"opens no tunnel to {tunnel.target} within {seconds:.3g} s"
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if tunnel.until is None:
                raise
            problem = f"opens no tunnel to {tunnel.target}: its answer is no HTTP ({type(error).__name__})"
        raise OutgoingProxyError(tunnel.proxy, problem, status) from None

    async def _start_tls_connection(
        self,
        underlying_transport: asyncio.Transport,
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's
        client_error: type[Exception] = aiohttp.ClientConnectorError,
    ) -> tuple[asyncio.BaseTransport, ResponseHandler]:
        """Begin TLS with the target, through the tunnel. A proxy may have announced a tunnel and opened none."""
        tunnel = self._tunnels[id(req)]
        if tunnel.until is not None:
            tunnel.until.reschedule(None)
            tunnel.until = None
        try:
            return await super()._start_tls_connection(underlying_transport, req, timeout, client_error)
        except aiohttp.ClientConnectorCertificateError:
            raise  # Its certificate is the target's, or of a proxy that reads TLS.
        except aiohttp.ClientConnectorError as error:
            reason = format_tls_error(error.os_error)
            problem = f"announces a tunnel to {tunnel.target}, and then TLS fails: {reason}"
            raise OutgoingProxyError(tunnel.proxy, problem) from None

    def _get_ssl_context(self, req: aiohttp.ClientRequest) -> ssl.SSLContext | None:
        """Return the TLS context of a request. By default it is of the current files."""
        if req.is_ssl() and req.ssl is True and self._ssl is True:
            try:
                return self._files.create_context()
            except TlsFilesError as error:
                raise aiohttp.ClientConnectionError(str(error)) from error
        return super()._get_ssl_context(req)


def open_session(
    peer: HttpPeer,
    *,
    seconds: float | None = None,
    timeout: aiohttp.ClientTimeout | None = None,
    tls: ssl.SSLContext | TlsFiles = DEFAULT_FILES,
    headers: Mapping[str, str] | None = None,
    auto_decompress: bool = True,
    find_target: FindTarget | None = None,
    **connector: Any,
) -> aiohttp.ClientSession:
    """Open a session for calls of one kind of server. The session keeps no cookies.

    `seconds` replaces `peer.seconds_max`, for example by the value of a setting. `timeout` replaces all of the peer's
    bounds in time. `tls`: with files, each new connection uses their current content. `find_target` names the address
    that a proxy is asked for. `connector` has further options for aiohttp's connector.

    Calls raise AnswerBoundError, aiohttp.ClientError and TimeoutError.
    """
    if timeout is None:
        total = peer.seconds_max if seconds is None else seconds
        timeout = aiohttp.ClientTimeout(total=total, connect=peer.connect_seconds_max)
    context: ssl.SSLContext | bool = tls if isinstance(tls, ssl.SSLContext) else True
    files = tls if isinstance(tls, TlsFiles) else DEFAULT_FILES
    return aiohttp.ClientSession(
        connector=_Connector(peer, find_target, files, ssl=context, **connector),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=headers,
        response_class=_Response,
        auto_decompress=auto_decompress,
        max_headers=peer.fields_max,
        max_line_size=peer.field_bytes_max,
        max_field_size=peer.field_bytes_max,
    )


def compute_head_bytes(message: RawResponseMessage) -> int:
    """Return the bytes of a head without its blank line, as most servers write it: "HTTP/1.1 200 OK", "Name: value"."""
    return (
        len("HTTP/1.1 200 ")
        + len(message.reason)
        + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
    )


def describe_head_bound(peer: HttpPeer) -> str:
    """Return a text about the bound of a peer's head, for errors."""
    return f"a head of more than {peer.head_bytes_max} bytes"


def describe_body_bound(peer: HttpPeer) -> str:
    """Return a text about the bound of a peer's body, for errors."""
    return f"a body of more than {peer.body_bytes_max} bytes"
