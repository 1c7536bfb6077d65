"""The connections of one worker: who is connected, those to be looked at twice a second, and how a drain ends."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from edgeproxy.base import log
from edgeproxy.edge.proxy.connection_limits import ConnectionLimits
from edgeproxy.edge.proxy.deadlines import Deadlines, Timed
from edgeproxy.edge.proxy.lost_streams import LOST_MAX, LostStreams
from edgeproxy.edge.proxy.reset_watcher import ResetWatcher

READERS_MAX = 256
"""Answers that are read for their usage alone at the same time: one client must not be able to keep upstreams busy with
answers that nobody waits for, beyond what limits hold."""

TUNNELS_SHARE, STREAMS_SHARE = 0.9, 0.95
"""Shares of a drain after which all WebSockets have been told and all event streams have been ended: their clients
connect again at once, so they must not all do so at the same time. What is left of it is for closing."""

INTERVAL_SECONDS_MAX = 1.0
"""Seconds between two of these at most: where there are few, nobody has to wait for them."""

LAST_ENDS_SECONDS = 0.2
"""Seconds within which connections that are cut have ended; the loop needs a turn or two for it."""


class UsageReader(Protocol):
    """A connection to an upstream whose answer nobody waits for any more."""

    def abort(self) -> None:
        """Close at once."""

    def end_usage(self) -> None:
        """Count what the answer has stated so far."""


class DownstreamConnection(Timed, Protocol):
    """A client's connection, be it in its TLS handshake or after it."""

    @property
    def subject(self) -> bytes:
        """The key under which it counts among the connections of its address, as `ConnectionLimits.admit` returned
        it."""

    def drain(self) -> None:
        """Finish what has begun, and end."""

    def abort(self) -> None:
        """Reset the connection at once."""


class RequestSide(Protocol):
    """The part of a client's connection that one request comes over: all of it, where requests come one by one."""

    @property
    def exchange(self) -> object | None:
        """The request under way."""

    def end_overdue_request(self) -> None:
        """End the request under way, which takes longer than it may."""


class SweptConnection(Protocol):
    """A connection that has something to do twice a second, whoever is late."""

    def sweep(self) -> None:
        """Do it; it must be quick."""


class ClientConnection(DownstreamConnection, Protocol):
    """A connection that requests come over."""

    @property
    def reading(self) -> bool:
        """Whether the socket is read at present."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the client."""

    @property
    def descriptor(self) -> int:
        """The descriptor of its socket."""

    def list_exchanges(self) -> Sequence[object]:
        """List the requests under way."""

    def check_reset(self) -> None:
        """Notice a reset while the socket is not read."""

    def send_probe(self, now: float) -> None:
        """Find out whether a client that has closed its side still waits; `now` is of the monotonic clock."""

    def update_configuration(self) -> None:
        """Take from the configuration that is served now what it makes of this peer."""

    @property
    def tunnel(self) -> object | None:
        """The tunnel that it is a part of once it has switched protocols."""

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer under way is a stream of events."""

    def close_tunnel(self) -> None:
        """Tell both ends of the tunnel, if any, that the edge is closing."""

    def end_event_stream(self) -> None:
        """End the stream of events under way, if it is one, as if the upstream had ended it."""


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
        """TLS handshakes of clients."""
        self.http2_clients: set[SweptConnection] = set()
        """Those of clients that speak HTTP/2."""
        self.streams = 0
        """Their streams."""
        self.lost: set[LostStreams] = set()
        """Those that are lost, and whose requests are being ended."""
        self.half_closed: set[ClientConnection] = set()
        """Clients that have closed their side, and may or may not still wait for an answer."""
        self.reset_watcher = ResetWatcher()
        """Watches those for the reset that says that they are gone."""
        self.request_deadlines: dict[RequestSide, tuple[object, float]] = {}
        """The request under way that has to be over by a time of the monotonic clock, however it goes, and that
        time."""
        self.upstreams = 0
        """Connections to upstreams."""
        self.tunnels = 0
        """The number of those that are half of a tunnel."""
        self.readers: set[UsageReader] = set()
        """Connections to upstreams whose answers are read for their usage alone: their clients have left."""
        self.draining = False
        """Whether the worker is about to leave: nobody begins anything new."""
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
        """Let the requests of a lost connection end in slices; False if they must end at once."""
        if self.draining or len(self.lost) >= LOST_MAX:
            return False
        lost.begin()
        return True

    def hand_over(self, client: ClientConnection) -> None:
        """Remove a client whose connection goes on as that of another one, for which it counts."""
        self.clients.discard(client)
        self._deadlines.timed.discard(client)

    def watch_half_closed(self, client: ClientConnection) -> None:
        """Watch a client that has closed its side."""
        self.half_closed.add(client)
        self.reset_watcher.watch(client.descriptor, client.transport.abort)

    def add_handshake(self, handshake: DownstreamConnection) -> None:
        """Add a client whose TLS handshake begins."""
        self.handshakes.add(handshake)
        self._track(handshake)

    def remove_handshake(self, handshake: DownstreamConnection, *, gone: bool = False) -> None:
        """Remove a handshake that has ended: in a client, or with the connection (`gone`)."""
        self.handshakes.discard(handshake)
        self._deadlines.timed.discard(handshake)
        if gone:
            self._untrack(handshake.subject)

    def _track(self, each: DownstreamConnection) -> None:
        self._deadlines.timed.add(each)
        self._empty.clear()
        if self.draining:
            # Accepted before the drain began, connected only now.
            each.drain()

    def _untrack(self, subject: bytes) -> None:
        self.limits.release(subject)
        if not self.clients and not self.handshakes:
            self._empty.set()

    def sweep(self, now: float) -> None:
        """Check clients that no socket event reports, twice a second. `now` is monotonic seconds."""
        for client in tuple(self.half_closed):
            client.send_probe(now)
        for client in [client for client in self.clients if not client.reading]:
            client.check_reset()
        for http2_client in self.http2_clients:
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
        """Add a connection to an upstream that is open."""
        self.upstreams += 1
        self._deadlines.timed.add(upstream)

    def remove_upstream(self, upstream: Timed, *, tunnel: bool) -> None:
        """Remove a connection to an upstream that is gone; `tunnel`: it was half of one."""
        self.upstreams -= 1
        if tunnel:
            self.tunnels -= 1
        self._deadlines.timed.discard(upstream)

    def add_reader(self, upstream: UsageReader) -> bool:
        """Add a connection whose answer is read for its usage alone; returns False where there are enough of these."""
        if len(self.readers) >= READERS_MAX:
            return False
        self.readers.add(upstream)
        return True

    def end_readers(self) -> None:
        """Count what answers whose clients have left state so far: the worker leaves."""
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
        for each in self._downstreams():
            each.drain()
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
            for each in cut:
                each.abort()
            try:
                # Their ends are counted, and logged, which cannot be done once the tables are closed.
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
        """Do this with each of these clients, evenly from `begin` to before `end`, in seconds of the loop's clock;
        returns True once nobody is connected."""
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
        """Wait until nobody is connected, until a time of the loop's clock; returns whether nobody is."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _downstreams(self) -> list[DownstreamConnection]:
        return [*self.clients, *self.handshakes]
