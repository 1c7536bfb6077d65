"""Connections of aiohttp applications (the collector and an edge's admin listener): their number and duration.

Connections are counted at accept, before a handshake. If there are too many, a new one replaces the one that has been
idle for longest. So silent clients cannot keep others out.
"""

import asyncio
import errno
import logging
import resource
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong

from edgeproxy.base import log
from edgeproxy.base.addresses import subject_of
from edgeproxy.base.tasks import Tasks

BACKLOG = 1024
HEAD_SECONDS = 10.0
"""Seconds from accept to the end of the first head, including a TLS handshake."""
IDLE_SECONDS = 75.0
"""Seconds from a response to the end of the next head. The client must also read the response in this time."""
SWEEP_SECONDS = 1.0
"""Seconds between two sweeps of idle connections."""
REST_SECONDS = 0.2
"""Seconds of pause while the process can have no more descriptors."""
RESPONSE_FIELDS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Fields of every response that does not set them."""
TARGET_BYTES_MAX = 16 << 10
"""Maximum bytes of a request target. A longer one is answered with 414."""
FIELD_BYTES_MAX = 8 << 10
"""Maximum bytes of a field's value. A longer one is answered with 431.

The two bounds differ, because aiohttp's error shows only the number.
"""
FIELDS_MAX = 128
"""Maximum fields of a head. More are answered with 431."""
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Peer(NamedTuple):
    """The peer of a connection."""

    address: str
    """The IP address, or `uid N` of the process at a Unix socket."""
    local: str | None
    """The local IP address; None at a Unix socket."""

    @property
    def subject(self) -> bytes:
        """The subject of connection counts: the address, or the /64 of IPv6."""
        return subject_of(self.address)


PEER = web.RequestKey("peer", Peer)
"""The peer of a request."""


class Bounds(NamedTuple):
    """Bounds on connections."""

    all: int
    """Connections of the process, at most half of its descriptors."""
    per_address: int
    """Connections of an address, or of a /64 of IPv6 (addresses.py)."""


class Connection:
    """A connection of a listener."""

    __slots__ = ("has_request", "peer", "pending", "socket", "subject", "waiting_since")

    def __init__(self, peer: Peer, accepted: socket.socket) -> None:
        self.peer = peer
        self.subject = peer.subject
        self.socket = accepted
        self.pending: asyncio.Task[None] | None = None
        """The TLS handshake of the connection while it lasts."""
        self.waiting_since: float | None = monotonic()
        """The monotonic time since when it is idle, or None during a request."""
        self.has_request = False
        """True after the first request."""

    def deadline(self) -> float:
        """Return the monotonic time when it will have been idle for too long."""
        if self.waiting_since is None:
            return float("inf")
        return self.waiting_since + (IDLE_SECONDS if self.has_request else HEAD_SECONDS)


class HttpProtocol(web.RequestHandler):
    """The HTTP of one connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a malformed request, which the application does not get."""
        answer = super().handle_error(request, find_status(exc) or status, exc, message)
        answer.headers.update(RESPONSE_FIELDS)
        return answer


class WebListener:
    """Accepts connections for an application, whose first middleware is `track_request`."""

    def __init__(self, bounds: Bounds, share: int = 1) -> None:
        """Create a listener. `share` is the number of listeners that share the descriptors of the process."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._bounds = bounds._replace(all=min(bounds.all, descriptors // 2 // share))
        logging.getLogger("aiohttp.server").addFilter(is_server_fault)
        self._open: dict[web.RequestHandler, Connection] = {}
        self._by_address: Counter[bytes] = Counter()
        self._tasks = Tasks()
        self._sweeping = False
        self._log = log.RateLimitedLog(60.0)
        self.refused = 0
        """Connections that were closed because of the bounds."""

    @web.middleware
    async def track_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Track a request of a connection."""
        connection = self._open.get(request.protocol)
        if connection is None:  # It was closed just now.
            raise web.HTTPServiceUnavailable
        request[PEER] = connection.peer
        connection.waiting_since, connection.has_request = None, True
        try:
            return await handler(request)
        finally:
            connection.waiting_since = monotonic()

    def accept(
        self,
        runner: web.AppRunner,
        listening: socket.socket,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        allows: Callable[[Peer], bool] = lambda _: True,
    ) -> asyncio.Task[None]:
        """Accept on this socket until the task is cancelled. `tls` returns the TLS context of each new connection.

        Connections that `allows` refuses are closed before a byte is read.
        """
        server = runner.server
        assert server is not None
        listening.setblocking(False)
        listening.listen(BACKLOG)
        if not self._sweeping:
            self._sweeping = True
            self._tasks.start("sweep", self._sweep())
        return self._tasks.start("accept", self._accept(server, listening, tls, allows))

    async def end(self) -> None:
        """Stop accepting. Open connections end with the runner."""
        await self._tasks.cancel()

    # ---- accept

    async def _accept(
        self,
        server: web.Server,
        listening: socket.socket,
        tls: Callable[[], ssl.SSLContext | None],
        allows: Callable[[Peer], bool],
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in FULL:  # It belongs to this connection, which has ended already.
                    continue
                self._log.error("a connection cannot be accepted", "descriptors", why=error.strerror)
                self._make_room(None)
                await asyncio.sleep(REST_SECONDS)
                continue
            try:
                peer = get_peer(accepted)
            except OSError:
                accepted.close()  # The peer has closed it already.
                continue
            if not allows(peer):
                self._log.info("connections refused: the listener is not for this address", peer.address)
                accepted.close()
            elif self._admits(peer):
                self._open_connection(server, Connection(peer, accepted), tls())
            else:
                accepted.close()

    def _admits(self, peer: Peer) -> bool:
        """Return whether there is room for one more connection. Closes an idle one if necessary."""
        subject = peer.subject
        if self._has_room(subject):
            return True
        self._forget_closed()
        if self._has_room(subject):
            return True
        many = self._by_address[subject] >= self._bounds.per_address
        if self._make_room(subject if many else None):
            return True
        self.refused += 1
        self._log.error("connections refused: there are as many as may be", peer.address)
        return False

    def _has_room(self, subject: bytes) -> bool:
        return len(self._open) < self._bounds.all and self._by_address[subject] < self._bounds.per_address

    def _make_room(self, subject: bytes | None) -> bool:
        """Close the connection that has been idle for longest, of this subject or of any. False: none is idle."""
        waiting = [
            (one.waiting_since, protocol)
            for protocol, one in self._open.items()
            if one.waiting_since is not None and subject in (None, one.subject)
        ]
        if not waiting:
            return False
        self._close(min(waiting, key=lambda one: one[0])[1])
        return True

    def _open_connection(self, server: web.Server, connection: Connection, context: ssl.SSLContext | None) -> None:
        protocol = HttpProtocol(
            server,
            loop=asyncio.get_running_loop(),
            max_line_size=TARGET_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            **server._kwargs,
        )
        self._open[protocol] = connection
        self._by_address[connection.subject] += 1
        connection.pending = self._tasks.start("connection", self._establish(protocol, connection, context))

    async def _establish(
        self, protocol: web.RequestHandler, connection: Connection, context: ssl.SSLContext | None
    ) -> None:
        loop, timeout = asyncio.get_running_loop(), HEAD_SECONDS if context is not None else None
        try:
            await loop.connect_accepted_socket(
                lambda: protocol, connection.socket, ssl=context, ssl_handshake_timeout=timeout
            )
        except (OSError, asyncio.CancelledError):  # The OSError may be ssl.SSLError.
            connection.socket.close()
            self._forget(protocol)
        finally:
            connection.pending = None

    # ---- end

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._forget_closed()
            now = monotonic()
            for protocol in [protocol for protocol, one in self._open.items() if one.deadline() <= now]:
                self._close(protocol)

    def _close(self, protocol: web.RequestHandler) -> None:
        connection = self._open[protocol]
        pending, transport = connection.pending, protocol.transport
        if pending is not None:
            pending.cancel()
            connection.socket.close()
        if transport is not None:
            transport.abort()
        self._forget(protocol)

    def _forget_closed(self) -> None:
        """Remove closed connections from the counts."""
        for protocol in [
            protocol
            for protocol, one in self._open.items()
            if one.pending is None and (protocol.transport is None or protocol.transport.is_closing())
        ]:
            self._forget(protocol)

    def _forget(self, protocol: web.RequestHandler) -> None:
        connection = self._open.pop(protocol, None)
        if connection is not None:
            self._by_address[connection.subject] -= 1
            if not self._by_address[connection.subject]:
                del self._by_address[connection.subject]


def find_status(error: BaseException | None) -> int | None:
    """Return the status for a head that exceeds a bound (RFC 9112 section 3, RFC 6585 section 5), or None."""
    if isinstance(error, LineTooLong):
        return 414 if error.args[1] == TARGET_BYTES_MAX else 431
    is_many = isinstance(error, BadHttpMessage) and error.message.startswith("Too many headers")
    return 431 if is_many else None


async def add_response_fields(_: web.Request, response: web.StreamResponse) -> None:
    """Add the fields of every response, for an application's `on_response_prepare`."""
    for name, value in RESPONSE_FIELDS.items():
        response.headers.setdefault(name, value)


def get_peer(accepted: socket.socket) -> Peer:
    """Return the peer of a socket. Raises OSError if it has closed."""
    if accepted.family == socket.AF_UNIX:
        _, uid, _ = struct.unpack("3i", accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(f"uid {uid}", None)
    return Peer(accepted.getpeername()[0], accepted.getsockname()[0])


def is_server_fault(record: logging.LogRecord) -> bool:
    """Return whether a log record of aiohttp is about more than a malformed request.

    Anybody could fill the log with malformed requests.
    """
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
