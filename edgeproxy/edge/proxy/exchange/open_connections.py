"""The connections of one worker: open clients, connections to check twice a second, and the end of a drain."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edgeproxy.base import log
from edgeproxy.edge.proxy.exchange.connection_limits import ConnectionLimits
from edgeproxy.edge.proxy.exchange.lost_streams import LOST_MAX, LostStreams
from edgeproxy.edge.proxy.transport.deadlines import Deadlines, Timed
from edgeproxy.edge.proxy.transport.reset_watcher import ResetWatcher

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.transport.address import Address

READERS_MAX = 256
"""Answers that may be read at one time for their usage alone. The bound keeps a client from occupying upstreams, beyond
its limits, with answers that it does not wait for.
"""

TUNNELS_SHARE, STREAMS_SHARE = 0.9, 0.95
"""Shares of a drain: after the first all WebSockets have been notified, after the second all event streams ended. Their
clients reconnect at once, so the edge spreads the ends over time. The rest of the drain is for closing.
"""

INTERVAL_SECONDS_MAX = 1.0
"""Maximum of seconds between two such ends: a few clients need not be spread over the whole drain."""

LAST_ENDS_SECONDS = 0.2
"""Seconds within which aborted connections end; the loop needs a turn or two for it."""


class UsageReader(Protocol):
    """A connection to an upstream whose client has left while the answer is read for its usage."""

    def abort(self) -> None:
        """Close at once."""

    def end_usage(self) -> None:
        """Count the usage stated so far."""


class DownstreamConnection(Timed, Protocol):
    """A client's connection, during its TLS handshake or after it."""

    @property
    def subject(self) -> bytes:
        """The key that counts the connections of its address, as `ConnectionLimits.admit` returned it."""

    def drain(self) -> None:
        """Finish the current work, then end."""

    def abort(self) -> None:
        """Reset the connection at once."""


class RequestSide(Protocol):
    """The part of a client's connection that carries one request: all of it in HTTP/1.1, a stream in HTTP/2."""

    @property
    def exchange(self) -> object | None:
        """The current request."""

    def end_overdue_request(self) -> None:
        """End the current request because it exceeds its total time."""


class SweptConnection(Protocol):
    """A connection with periodic work twice a second, independent of deadlines."""

    def sweep(self) -> None:
        """Do the periodic work; it must be quick."""


class ActiveClient(Protocol):
    """The client's side of a request."""

    @property
    def address(self) -> "Address":
        """The address of the client."""


class Server(Protocol):
    """The upstream's side of a request."""

    @property
    def tunnel(self) -> object | None:
        """The tunnel that it belongs to after a protocol switch."""


class ActiveRequest(Protocol):
    """A current request of a connection."""

    @property
    def client(self) -> ActiveClient:
        """The client's side."""

    @property
    def server(self) -> Server | None:
        """The upstream's side, once there is one."""


class ClientConnection(DownstreamConnection, Protocol):
    """A connection that carries requests."""

    @property
    def reading(self) -> bool:
        """True while the socket is read."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the client."""

    @property
    def descriptor(self) -> int:
        """The descriptor of its socket."""

    def list_exchanges(self) -> Sequence[ActiveRequest]:
        """List the current requests."""

    def check_reset(self) -> None:
        """Detect a reset while the socket is not read."""

    def send_probe(self, now: float) -> None:
        """Find out whether a client that has closed its side still waits; `now` is monotonic time."""

    def update_configuration(self) -> None:
        """Apply the current configuration to this peer."""

    @property
    def tunnel(self) -> object | None:
        """The tunnel that it belongs to after a protocol switch."""

    @property
    def is_event_stream(self) -> bool:
        """True if the current answer is an event stream."""

    def close_tunnel(self) -> None:
        """Tell both ends of the tunnel, if any, that the edge is closing."""

    def end_event_stream(self) -> None:
        """End the current event stream, if any, as if the upstream had ended it."""


class Connections:
    """Every open connection of a worker. Each adds itself when it begins, and removes itself when it ends."""

    __slots__ = (
        "_deadlines",
        "_empty",
        "_log",
        "clients",
        "draining",
        "half_closed",
        "handshakes",
        "http2_clients",
        "limits",
        "lost",
        "readers",
        "request_deadlines",
        "reset_watcher",
        "streams",
        "tunnels",
        "upstreams",
    )

    def __init__(self, limits: ConnectionLimits, deadlines: Deadlines) -> None:
        self.limits = limits
        self._deadlines = deadlines
        self._log = log.get_logger()
        self.clients: set[ClientConnection] = set()
        self.handshakes: set[DownstreamConnection] = set()
        """Connections without a client yet: in a TLS handshake, or until a proxy has sent its header."""
        self.http2_clients: set[SweptConnection] = set()
        """The clients that speak HTTP/2."""
        self.streams = 0
        """The number of their streams."""
        self.lost: set[LostStreams] = set()
        """Lost HTTP/2 connections whose requests are being ended."""
        self.half_closed: set[ClientConnection] = set()
        """Clients that have closed their side, and may or may not still wait for an answer."""
        self.reset_watcher = ResetWatcher()
        """Detects the reset of a half-closed client, which means that the client has left."""
        self.request_deadlines: dict[RequestSide, tuple[object, float]] = {}
        """The current request that must end by a given monotonic time, and that time."""
        self.upstreams = 0
        """The number of connections to upstreams."""
        self.tunnels = 0
        """The number of connections to upstreams that are half of a tunnel."""
        self.readers: set[UsageReader] = set()
        """Connections to upstreams whose answers are read for their usage alone: their clients have left."""
        self.draining = False
        """True once the worker is about to leave: no new work begins."""
        self._empty = asyncio.Event()
        self._empty.set()

    # ---- clients

    def add_client(self, client: ClientConnection) -> None:
        """Add a client that has connected."""
        self.clients.add(client)
        self._track(client)

    def remove_client(self, client: ClientConnection) -> None:
        """Remove a client whose connection is gone."""
        self.clients.discard(client)
        if client in self.half_closed:
            self.half_closed.discard(client)
            self.reset_watcher.unwatch(client.descriptor)
        self._deadlines.timed.discard(client)
        self._untrack(client.subject)

    def add_lost(self, lost: LostStreams) -> bool:
        """End the requests of a lost connection in slices. Return False if they must end at once."""
        if self.draining or len(self.lost) >= LOST_MAX:
            return False
        lost.begin()
        return True

    def hand_over(self, client: ClientConnection) -> None:
        """Remove a client whose connection another object takes over; the connection still counts."""
        self.clients.discard(client)
        self._deadlines.timed.discard(client)

    def watch_half_closed(self, client: ClientConnection) -> None:
        """Watch a client that has closed its side."""
        self.half_closed.add(client)
        self.reset_watcher.watch(client.descriptor, client.transport.abort)

    def add_handshake(self, handshake: DownstreamConnection) -> None:
        """Add a connection whose TLS handshake, or wait for a proxy's header, begins."""
        self.handshakes.add(handshake)
        self._track(handshake)

    def remove_handshake(self, handshake: DownstreamConnection, *, gone: bool = False) -> None:
        """Remove a handshake that has ended, either with success or with its connection (`gone`)."""
        self.handshakes.discard(handshake)
        self._deadlines.timed.discard(handshake)
        if gone:
            self._untrack(handshake.subject)

    def pass_on(self, header: DownstreamConnection) -> None:
        """Remove a connection whose proxy header is complete. Its successor has a place of its own by now."""
        self.handshakes.discard(header)
        self._deadlines.timed.discard(header)
        self._set_if_empty()

    def _track(self, each: DownstreamConnection) -> None:
        self._deadlines.timed.add(each)
        self._empty.clear()
        if self.draining:
            # It was accepted before the drain began and connects only now.
            each.drain()

    def _untrack(self, subject: bytes) -> None:
        self.limits.release(subject)
        self._set_if_empty()

    def _set_if_empty(self) -> None:
        if not self.clients and not self.handshakes:
            self._empty.set()

    def count_by_address(self) -> Counter[bytes]:
        """Count the requests at upstreams by the address of their client. A tunnel no longer counts as a request."""
        return Counter(
            exchange.client.address.subject
            for client in self.clients
            for exchange in client.list_exchanges()
            if exchange.server is not None and exchange.server.tunnel is None
        )

    def sweep(self, now: float) -> None:
        """Check clients that no socket event reports, twice a second. `now` is monotonic seconds."""
        for client in tuple(self.half_closed):
            client.send_probe(now)
        for client in [client for client in self.clients if not client.reading]:
            client.check_reset()
        for http2_client in tuple(self.http2_clients):  # A timeout may end a connection.
            http2_client.sweep()
        for side, (exchange, until) in tuple(self.request_deadlines.items()):
            if side.exchange is not exchange:
                del self.request_deadlines[side]
            elif now > until:
                del self.request_deadlines[side]
                side.end_overdue_request()

    def update_configuration(self) -> None:
        """Make all clients adopt a new configuration, which may treat connected clients differently."""
        for client in self.clients:
            client.update_configuration()

    # ---- upstreams

    def add_upstream(self, upstream: Timed) -> None:
        """Add an open connection to an upstream."""
        self.upstreams += 1
        self._deadlines.timed.add(upstream)

    def remove_upstream(self, upstream: Timed, *, tunnel: bool) -> None:
        """Remove a closed connection to an upstream; `tunnel`: it was half of a tunnel."""
        self.upstreams -= 1
        if tunnel:
            self.tunnels -= 1
        self._deadlines.timed.discard(upstream)

    def add_reader(self, upstream: UsageReader) -> bool:
        """Add a connection whose answer is read for its usage alone. Return False if there are too many of them."""
        if len(self.readers) >= READERS_MAX:
            return False
        self.readers.add(upstream)
        return True

    def end_readers(self) -> None:
        """Count the usage that answers without clients have stated so far: the worker leaves."""
        for reader in tuple(self.readers):
            reader.abort()
            reader.end_usage()

    # ---- the end

    async def drain(self, seconds: float) -> None:
        """Let every client finish its requests in flight; cut the rest after `seconds`.

        WebSockets are notified one by one over most of that time. Event streams continue almost to its end.
        """
        begun = asyncio.get_running_loop().time()
        for lost in tuple(self.lost):
            lost.end()
        for downstream in self._downstreams():
            downstream.drain()
        tunnels = [client for client in self.clients if client.tunnel is not None]
        streams = begun + TUNNELS_SHARE * seconds
        if await self._act_evenly(tunnels, lambda client: client.close_tunnel(), begun, streams):
            return
        if await self._is_empty_by(streams):
            return
        listeners = [client for client in self.clients if client.is_event_stream]
        last = begun + STREAMS_SHARE * seconds
        if await self._act_evenly(listeners, lambda client: client.end_event_stream(), streams, last):
            return
        if not await self._is_empty_by(begun + seconds):
            cut = self._downstreams()
            self._log.warning("connections cut at the end of the drain", connections=len(cut))
            for downstream in cut:
                downstream.abort()
            try:
                # The ends of these connections are counted and logged, so they must precede the closing of the tables.
                async with asyncio.timeout(LAST_ENDS_SECONDS):
                    await self._empty.wait()
            except TimeoutError:
                pass

    async def _act_evenly(
        self,
        clients: list[ClientConnection],
        act: Callable[[ClientConnection], None],
        begin: float,
        end: float,
    ) -> bool:
        """Call `act` for each of these clients, evenly spread from `begin` to before `end`, in seconds of the loop's
        clock.

        Return True as soon as no client is connected.
        """
        loop = asyncio.get_running_loop()
        interval = min((end - begin) / max(1, len(clients)), INTERVAL_SECONDS_MAX)
        for number, client in enumerate(clients):
            due = begin + number * interval
            if loop.time() < due and await self._is_empty_by(due):
                return True
            if client in self.clients:
                act(client)
        return False

    async def _is_empty_by(self, deadline: float) -> bool:
        """Wait until no client is connected, at most until a time of the loop's clock. Return whether none is."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _downstreams(self) -> list[DownstreamConnection]:
        return [*self.clients, *self.handshakes]
