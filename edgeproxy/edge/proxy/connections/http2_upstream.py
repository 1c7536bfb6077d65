"""Connections to upstreams that speak HTTP/2, by endpoint: several streams share a connection.

A worker opens one connection to an endpoint. It opens another if the endpoint allows no further stream on it, or if a
request would have to wait for others on it.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from edgeproxy.edge.http1.grammar import create_answer_limits
from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.requester import Requester
from edgeproxy.edge.proxy.connections.dial import dial
from edgeproxy.edge.proxy.connections.frame_writer import FrameWriter
from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection
from edgeproxy.edge.proxy.connections.upstream_stream import UpstreamStream
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.socket_input import read_remaining
from edgeproxy.edge.proxy.transport.turns import PIECE_BYTES_MAX, SMALL_BYTES, InputBacklog

if TYPE_CHECKING:
    from edgeproxy.base.client_tls import ClientTls
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint


CONNECTIONS_MAX: Final = 8
"""Beyond this number of connections to an endpoint, none is opened just because the others are blocked: by requests
that the service does not take, or by streams without a client. The endpoint's limit of streams may still open more.
"""

SILENT_SECONDS: Final = 1.0
"""If a request has no answer, this many seconds of silence end the use of its connection."""


SETTINGS_SECONDS: Final = 1.0
"""Seconds to wait for the first SETTINGS of an upstream, which limit its streams. After that the default applies."""


class Http2Upstream(asyncio.Protocol):
    """A connection to an endpoint that carries streams. `deadline` is in monotonic seconds."""

    takes_bulk = False
    piece_bytes_max = PIECE_BYTES_MAX

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint", on_lost: Callable[[], None]) -> None:
        self._runtime, self._endpoint, self._on_lost = runtime, endpoint, on_lost
        self.deadline = NEVER
        self._announced = asyncio.Event()
        self._backlog = InputBacklog(runtime.turns, self)
        self._received_at = 0.0
        """When the last bytes came."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._writer = FrameWriter(transport)
        self._writer.is_held = True
        limits = create_answer_limits(self._endpoint.service.max_head_bytes)
        self.http2 = Requester(self._writer.write, self._writer.write_many, limits)
        self._writer.streams = self.http2.streams
        self._writer.flush()
        self._runtime.deadlines.timed.add(self)

    @property
    def is_open(self) -> bool:
        """True if it is neither closed nor closing."""
        return not (self.http2.is_over or self.transport.is_closing())

    @property
    def has_room(self) -> bool:
        """True if one more request may use it without waiting."""
        return self.http2.has_room and not self.transport.is_closing()

    @property
    def has_places(self) -> bool:
        """True if the upstream allows one more stream."""
        return self.http2.has_places and not self.transport.is_closing()

    def open_stream(self, server: UpstreamConnection) -> None:
        """Give a request's connection a stream as its transport."""
        if not self.http2.unread:
            self.deadline = NEVER
        UpstreamStream(self, self._endpoint.scheme.encode(), server)

    def data_received(self, data: bytes) -> None:
        self._received_at = monotonic()
        if (len(self._backlog) or len(data) > SMALL_BYTES) and self._backlog.receive(data):
            return
        self._writer.is_held = True
        rest = self.http2.receive_slice(data)
        if rest and (rest := self._runtime.turns.repeat(self.http2.receive_slice, rest)):
            self._backlog.put_back(rest)
        if self.http2.has_announced:
            self._announced.set()
        self._writer.flush()
        if self.http2.is_over:
            self.transport.close()

    # ---- input that waits for its turns

    def has_room_for_input(self) -> bool:
        """Return True: the windows of its streams bound the input."""
        return True

    def hold_input(self) -> None:
        """Read nothing until the waiting input has had its turn."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def on_backlog_done(self) -> None:
        """Resume reading."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return "upstream over HTTP/2", f"{self._endpoint.host}:{self._endpoint.port}"

    # ---- streams and ends

    def limit_idle(self) -> None:
        """Close the connection once it is unused: at once if the upstream leaves, else after a while."""
        http2 = self.http2
        if http2.is_abandoned:
            self._close()
            return
        if http2.blocked:
            http2.send_blocked()  # A request that is alone now may use all of the window.
        if http2.unread:
            self.deadline = monotonic()
        elif not self.http2.streams:
            if self.http2.is_leaving:
                self.transport.close()
            elif self.deadline == NEVER:
                self.deadline = monotonic() + self._endpoint.service.idle_timeout

    def doubt(self, since: float) -> None:
        """Open no further streams if nothing came since a stream without an answer was opened.

        The upstream may have vanished, and then each request would wait in vain.
        """
        if self._received_at < since and monotonic() - since >= SILENT_SECONDS:
            self.http2.is_leaving = True

    async def wait_for_settings(self) -> None:
        """Wait until the upstream's limit of streams is known, or the connection is lost."""
        try:
            async with asyncio.timeout(SETTINGS_SECONDS):
                await self._announced.wait()
        except TimeoutError:
            self.http2.announce_defaults()

    def pause_writing(self) -> None:
        self.http2.write_paused = True

    def resume_writing(self) -> None:
        self.http2.write_paused = False
        self._writer.is_held = True
        self.http2.send_blocked()
        self._writer.flush()

    def on_timeout(self) -> None:
        """Close an idle connection, or reset streams without a client."""
        self.deadline = NEVER
        if self.http2.unread:
            self.http2.reset_unread()
            self.limit_idle()
        elif not self.http2.streams:
            self._close()

    def _close(self) -> None:
        self.http2.close(ErrorCode.NO_ERROR)
        self._writer.flush()
        self.transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._runtime.deadlines.timed.discard(self)
        self.http2.receive(self._backlog.close())  # It came before the end.
        if isinstance(exc, OSError) and self._endpoint.scheme == "http":
            # A write failed. The answers, and the reason in a GOAWAY, may be among the unread bytes.
            self.http2.receive(read_remaining(self.transport))
        self.http2.abandon()
        self._announced.set()
        self._writer.drop()
        self._on_lost()


class Http2Pool:
    """The connections of one worker to upstreams that speak HTTP/2, by endpoint."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._connections: dict[Endpoint, list[Http2Upstream]] = {}
        self._dialing: dict[Endpoint, asyncio.Lock] = {}

    async def open_stream(self, server: UpstreamConnection, tls: "ClientTls | None") -> None:
        """Give a request's connection a stream, over a new connection if no existing one has room.

        Raises the errors of `dial`. If cancelled, it leaves nothing open.
        """
        endpoint = server.endpoint
        if self._open_stream(server):
            return
        # Requests that come meanwhile wait for this connection instead of opening their own.
        lock = self._dialing.setdefault(endpoint, asyncio.Lock())
        try:
            async with lock:
                while not self._open_stream(server):
                    silent = self._find_silent(endpoint)
                    if silent is None:
                        break
                    await silent.wait_for_settings()
                else:
                    return
                connection = Http2Upstream(self._runtime, endpoint, self._forget_closed)
                await dial(endpoint, cast("asyncio.Protocol", connection), tls, self._runtime)
                self._connections.setdefault(endpoint, []).append(connection)
                connection.open_stream(server)
        finally:
            if not lock.locked():
                self._dialing.pop(endpoint, None)

    def _find_silent(self, endpoint: "Endpoint") -> Http2Upstream | None:
        """Find a connection whose upstream has not announced its limit of streams yet."""
        connections = self._connections.get(endpoint, ())
        return next(
            (connection for connection in connections if connection.is_open and not connection.http2.has_announced),
            None,
        )

    def _open_stream(self, server: UpstreamConnection) -> bool:
        """Open a stream on a connection with room. Return whether there is one.

        With CONNECTIONS_MAX connections, any connection that allows a stream will do, the least burdened first.
        """
        connections = self._connections.get(server.endpoint, ())
        for connection in connections:
            if connection.has_room:
                connection.open_stream(server)
                return True
        if len(connections) >= CONNECTIONS_MAX:
            usable = [connection for connection in connections if connection.has_places]
            if usable:
                min(
                    usable, key=lambda connection: (len(connection.http2.unread), -connection.http2.send_window)
                ).open_stream(server)
                return True
        return False

    def _forget_closed(self) -> None:
        """Forget closed connections, and endpoints without connections, which may have left the configuration."""
        for endpoint, connections in tuple(self._connections.items()):
            open_connections = [connection for connection in connections if connection.is_open]
            if open_connections:
                self._connections[endpoint] = open_connections
            else:
                del self._connections[endpoint]
