"""The worker: a process of the data plane. It serves what its supervisor configures, on sockets it was handed.

It never waits for its supervisor. If that dies the worker serves on, until another supervisor serves in its place
or a deadline passes; then it takes what is queued, finishes what it has begun, and leaves.
"""

import argparse
import asyncio
import errno
import gc
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from email.utils import formatdate
from itertools import zip_longest
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from edgeproxy import log
from edgeproxy.channel import Channel, ChannelClosed
from edgeproxy.counters.columns import NoFreeColumn
from edgeproxy.counters.file import TableError
from edgeproxy.counters.index import NoRow
from edgeproxy.counters.store import Store
from edgeproxy.errors import Fault
from edgeproxy.proxy.acceptor import Acceptor, TlsHandshake
from edgeproxy.proxy.access import AccessLog
from edgeproxy.proxy.claim_waiter import ClaimWaiter
from edgeproxy.proxy.client import Client
from edgeproxy.proxy.connection_limits import ConnectionLimits
from edgeproxy.proxy.control_handler import ControlHandler, why_not
from edgeproxy.proxy.deadlines import NEVER, Deadlines
from edgeproxy.proxy.dial import HandshakeFailed, dial
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.generations import Generations
from edgeproxy.proxy.ids import Ids
from edgeproxy.proxy.key_lookup import KeyLookup
from edgeproxy.proxy.overload import Overload
from edgeproxy.proxy.pool import Endpoint
from edgeproxy.proxy.prepared_configuration import PreparedConfiguration
from edgeproxy.proxy.snapshot import Snapshot
from edgeproxy.proxy.tls import Inward, Outward, Unusable, fault_of, why_of
from edgeproxy.proxy.upstream_connection import UpstreamConnection
from edgeproxy.proxy.worker_metrics import WorkerMetrics
from edgeproxy.tasks import Tasks

COMPLAIN = 10.0
"""Seconds between two log lines about one endpoint that cannot be reached."""

ORPHAN_LOOK = 0.25
"""Seconds between two looks of an orphan for a supervisor that serves in its own one's place."""

SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""What this host lacks when a connection cannot be opened: no upstream is to blame."""

INTRODUCED = 2.0
"""Seconds that a worker waits at most for the addresses of upstreams before it serves."""

LAST_ENDS = 0.2
"""Seconds within which connections that are cut have ended; the loop needs a turn or two for it."""

LAST_LINES = 0.5
"""Seconds that the access log may take for its last lines when a worker leaves."""

TURN = 0.0005
"""Seconds that a thread may run while the loop waits for its turn; a configuration is prepared in one."""

BACKLOG = 4096
"""Connections that may wait to be accepted."""

HEARTBEAT_FRESH = 5.0
"""Seconds after which a supervisor that did not beat is taken for dead."""


class Worker:
    """What one worker process holds. Lives in one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.counts = WorkerMetrics(store)
        self.entry = ConnectionLimits(self)
        self.ids = Ids()
        self.deadlines = Deadlines()
        self.tasks = Tasks()
        self.offset = store.offset
        self.date = date_field()
        """The Date line of the edge's own answers, and of upstreams' that have none (RFC 9110 section 6.6.1), made at
        every sweep."""
        self.draining = False
        self.introduced = asyncio.Event()
        """The supervisor has told of endpoints."""
        self.snapshot: Snapshot
        self.generations = Generations(self)
        self.overload = Overload(self)
        self.asking = ClaimWaiter(lambda _: True)
        """Who asks the hub, by way of the supervisor."""
        self.key_lookup = KeyLookup(lambda _: True)
        """Who asks the supervisor for people who are in no file."""
        self._clients: set[Client] = set()
        self._guests: set[TlsHandshake] = set()
        self.half_closed: set[Client] = set()
        """Those who have closed their side, and may or may not still wait for an answer."""
        self._upstream_connections = 0
        self.tunnels = 0
        """How many of those are half of a tunnel."""
        self._listening: list[tuple[asyncio.Server, socket.socket, Acceptor]] = []
        self._inward: list[Inward] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._log = log.get()
        self._seldom = log.Seldom(COMPLAIN)
        self.deadlines.also(self._look_around)

    # ---- connections

    def joined(self, client: Client) -> None:
        """A client has connected."""
        self._clients.add(client)
        self.deadlines.everybody.add(client)
        self._empty.clear()
        if self.draining:
            # Accepted before the drain began, connected only now.
            client.drain()

    def left(self, client: Client) -> None:
        """A client's connection is gone."""
        self._clients.discard(client)
        self.half_closed.discard(client)
        self.deadlines.everybody.discard(client)
        self._over(client.subject)

    def greets(self, guest: TlsHandshake) -> None:
        """A client's TLS handshake begins."""
        self._guests.add(guest)
        self.deadlines.everybody.add(guest)
        self._empty.clear()
        if self.draining:
            guest.drain()

    def greeted(self, guest: TlsHandshake, *, gone: bool = False) -> None:
        """It has ended: in a client, or in nothing."""
        self._guests.discard(guest)
        self.deadlines.everybody.discard(guest)
        if gone:
            self._over(guest.subject)

    def _over(self, subject: bytes) -> None:
        self.entry.leave(subject)
        if not self._clients and not self._guests:
            self._empty.set()

    def reached(self, server: UpstreamConnection) -> None:
        """A connection to an upstream is open."""
        self._upstream_connections += 1
        self.deadlines.everybody.add(server)

    def lost(self, server: UpstreamConnection) -> None:
        """A connection to an upstream is gone."""
        self._upstream_connections -= 1
        if server.tunnel is not None:
            self.tunnels -= 1
        self.deadlines.everybody.discard(server)

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for this exchange and send its request over it."""
        exchange.client.deadline = NEVER  # The connection attempt has a deadline of its own.
        exchange.away_since = monotonic()
        self.tasks.start("connect", self._connect(exchange))

    async def _connect(self, exchange: Exchange) -> None:
        client = exchange.client
        while client.exchange is exchange:
            endpoint = exchange.endpoint
            service = endpoint.service
            try:
                async with asyncio.timeout(service.connect_timeout):
                    server = UpstreamConnection(self, endpoint)
                    tls = exchange.snapshot.outward[service.name] if endpoint.scheme == "https" else None
                    await dial(endpoint, server, tls)
            except TimeoutError:
                fault = Fault("connection_timeout", "The upstream did not take the connection in time", status=504)
                why = f"no connection within {service.connect_timeout:g} s"
            except HandshakeFailed as failure:
                fault = Fault(fault_of(failure.why), "TLS with the upstream could not be agreed on")
                why = why_of(failure.why)
            except OSError as refusal:
                fault = Fault("connection_refused", "The upstream could not be connected to")
                if refusal.errno in SHORT:
                    fault = Fault("proxy_internal_error", "The edge has no connection to spare", status=503, ours=True)
                why = str(refusal)
            except Exception as unforeseen:
                # Nobody else would ever tell the client.
                self._log.exception("connecting failed", endpoint=f"{endpoint.host}:{endpoint.port}")
                fault = Fault("proxy_internal_error", "The edge could not connect to the upstream", ours=True)
                why = repr(unforeseen)
            else:
                exchange.connected(server)
                return
            # Which endpoint, and why, is the operator's business and not the client's.
            asked = exchange.request_id().decode()
            self._seldom.error("upstream unreachable", f"{endpoint.host}:{endpoint.port}", why=why, request_id=asked)
            if client.exchange is exchange:
                exchange.unreachable(fault)

    def tls_broke(self, exchange: Exchange, endpoint: Endpoint, failure: ssl.SSLError) -> Fault:
        """A connection to an upstream that TLS had been agreed on is of no use any more: what its request fails of.

        In TLS 1.3 that is also how an upstream refuses the edge's certificate.
        """
        about, asked = f"{endpoint.host}:{endpoint.port}", exchange.request_id().decode()
        self._seldom.error("TLS with an upstream broke", about, why=why_of(failure), request_id=asked)
        return Fault(fault_of(failure), "TLS with the upstream broke")

    # ---- life

    async def listen(self, listening: Sequence[socket.socket], inward: Sequence[Inward | None] = ()) -> None:
        """Serve on these sockets, which other workers share; over TLS where there is something of it in `inward`."""
        loop = asyncio.get_running_loop()
        self._inward = [each for each in inward if each is not None]
        for each, tls in zip_longest(listening, inward):
            door = Acceptor(self, tls)
            # The loop closes the socket that it is given; this one is for what is queued when it has done so.
            queue = each.dup()
            queue.setblocking(False)
            server = await loop.create_server(door.opens, sock=each, backlog=BACKLOG)
            self._listening.append((server, queue, door))
        self.deadlines.start()
        self.overload.start()

    def take_queued(self, most: int) -> None:
        """Take so many of the connections that wait to be accepted, of each listener.

        The loop itself takes one of them in a turn (libuv 1.48), which is slow where turns are long.
        """
        loop = asyncio.get_running_loop()
        for _, queue, door in self._listening:
            for _ in range(most):
                accepted = _accept(queue)
                if accepted is None:
                    break
                self.tasks.start("accept", loop.connect_accepted_socket(door.opens, accepted))

    async def drain(self, seconds: float) -> None:
        """Take what is queued, finish what has begun, accept nothing new; what is left after `seconds` is cut."""
        loop = asyncio.get_running_loop()
        self.draining = True
        for server, queue, door in self._listening:
            server.close()
            with queue:
                while (accepted := _accept(queue)) is not None:
                    await loop.connect_accepted_socket(door.opens, accepted)
        self._listening.clear()
        # What the loop itself has accepted joins in its next turn, and must not find an empty worker gone.
        await asyncio.sleep(0)
        inside: list[Client | TlsHandshake] = [*self._clients, *self._guests]
        for each in inside:
            each.drain()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            cut: list[Client | TlsHandshake] = [*self._clients, *self._guests]
            self._log.warning("connections cut at the end of the drain", connections=len(cut))
            for each in cut:
                each.abort()
            try:
                # Their ends are counted, and logged, which cannot be done once the tables are closed.
                async with asyncio.timeout(LAST_ENDS):
                    await self._empty.wait()
            except TimeoutError:
                pass

    def certificates_changed(self) -> None:
        """Load all certificates anew; where one cannot be used, what there was stays."""
        loaded: list[Inward | Outward] = [*self._inward, *self.generations.outward()]
        for each in loaded:
            try:
                each.load()
            except Unusable as why:
                self._log.error("certificates not loaded, those before stay", why=str(why))

    async def is_introduced(self, seconds: float) -> None:
        """Wait until the supervisor has told of endpoints, for so many seconds at most."""
        try:
            async with asyncio.timeout(seconds):
                await self.introduced.wait()
        except TimeoutError:
            self._log.warning("the supervisor told of no addresses")

    def _look_around(self) -> None:
        """Twice a second: what changed outside, and what is to be shown of what is inside."""
        self.offset = self.store.offset
        self.date = date_field()
        self.store.columns_changed()
        now = monotonic()
        self.snapshot.look(now)
        self.snapshot.look_for_hosts()
        for client in tuple(self.half_closed):
            client.probe(now)
        for client in [client for client in self._clients if not client.reading]:
            client.check()
        self.counts.upstream_connections(self._upstream_connections)
        access = self.snapshot.access
        if access is not None:
            access.flush()
            self.mourn_lines(access)
        self.generations.look()

    def dress_anew(self) -> None:
        """Another configuration is served, which may think otherwise of those who are connected."""
        for client in self._clients:
            client.dress_anew()

    def mourn_lines(self, access: AccessLog) -> None:
        """Count the lines of the access log that could not be written."""
        lost, why = access.lost()
        if lost:
            self.counts.access_log_dropped(lost)
            self._seldom.error("access log lines dropped", str(access.file), lines=lost, why=why)

    def end_logs(self) -> None:
        """Write what access logs still hold."""
        until = monotonic() + LAST_LINES
        for access in self.generations.logs():
            access.close(max(0.0, until - monotonic()))
            self.mourn_lines(access)


def date_field() -> bytes:
    """The Date line of this second, with its CRLF."""
    return f"Date: {formatdate(usegmt=True)}\r\n".encode()


def _accept(queue: socket.socket) -> socket.socket | None:
    """The next connection that waits to be accepted, or None."""
    try:
        accepted, _ = queue.accept()
    except OSError:  # None waits, or, without a descriptor to spare, none can be taken.
        return None
    accepted.setblocking(False)
    return accepted


async def serve(end: socket.socket, listening: Sequence[socket.socket]) -> int:
    """The life of a worker process, from its configuration to its end; returns its exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    channel = await Channel.over(end)
    config = await channel.receive()
    tables = config["tables_dir"]
    try:
        store = Store.join(Path(config["state"]), tables_dir=None if tables is None else Path(tables))
    except (NoFreeColumn, TableError) as failure:
        crowded = isinstance(failure, NoFreeColumn)
        await channel.send({"type": "failed", "why": str(failure), "crowded": crowded})
        return 1
    worker = Worker(store)
    worker.generations.number = config["number"]
    try:
        draft = PreparedConfiguration(config.pop("settings"))
        worker.asking, worker.key_lookup = ClaimWaiter(channel.offer), KeyLookup(channel.offer)
        worker.snapshot = Snapshot(draft, store, worker.counts, sharing=worker.asking, key_lookup=worker.key_lookup)
        inward = [None if each.tls is None else Inward(each.tls) for each in draft.settings.listen]
        del draft
    except (Unusable, NoRow) as why:
        await channel.send({"type": "failed", "why": why_not(why)})
        return 1
    told = worker.tasks.start("channel", until_told(channel, worker, config, stop))
    if worker.snapshot.lacks_addresses():
        # The supervisor tells them right after the configuration; requests before that would go nowhere.
        await worker.is_introduced(INTRODUCED)
    if not stop.is_set():
        await worker.listen(listening, inward)
    # What has been made up to here lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    sys.setswitchinterval(TURN)
    try:
        await channel.send({"type": "ready", "column": store.column})
    except ChannelClosed:
        pass  # Clients may have connected already.
    await stop.wait()
    store.serve_no_longer()
    deadline = told.result() if told.done() else None
    await worker.drain(worker.snapshot.drain if deadline is None else deadline)
    try:
        await channel.send({"type": "left"})
    except ChannelClosed:
        pass
    channel.close()
    await worker.tasks.cancel()
    worker.deadlines.stop()
    worker.overload.stop()
    worker.end_logs()
    store.close()
    return 0


async def until_told(channel: Channel, worker: Worker, config: dict[str, Any], stop: asyncio.Event) -> float | None:
    """Wait until this worker is to leave; returns the seconds that it has for it, None where nobody said."""
    logger = log.get()
    orders = ControlHandler(channel, worker)
    worker.tasks.start("orders", orders.obey())
    worker.tasks.start("alive", orders.live())
    try:
        deadline = await orders.until_drain()
        worker.tasks.start("the hub's answers", orders.until_gone())
        stop.set()
        return deadline
    except ChannelClosed:
        logger.warning("the supervisor is gone; serving on until another one serves")
    worker.asking.orphaned()
    worker.key_lookup.orphaned()
    leave_by = monotonic() + config["orphan_deadline"]
    while monotonic() < leave_by and not stop.is_set():
        token, age = worker.store.control.serving(monotonic())
        if token not in (0, config["token"]) and age < HEARTBEAT_FRESH:
            logger.info("another supervisor serves; leaving")
            break
        if not worker.store.serve_on(last=token == config["token"]):
            logger.info("enough others serve on without a supervisor; leaving")
            break
        await asyncio.sleep(ORPHAN_LOOK)
    stop.set()
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: `--channel FD --listen FD,FD`, descriptors that the supervisor passed."""
    parser = argparse.ArgumentParser(prog="edgeproxy.proxy", description="A worker; started by its supervisor.")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listen", required=True, help="descriptors, separated by commas")
    options = parser.parse_args(arguments)
    log.configure("worker")
    # It asks the supervisor for a reload. Whoever sends it to all processes of the edge must not end them.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listening = [socket.socket(fileno=int(number)) for number in options.listen.split(",")]
    try:
        return uvloop.run(serve(socket.socket(fileno=options.channel), listening))
    except ChannelClosed:
        print("edgeproxy.proxy: the supervisor is gone before it said what to serve", file=sys.stderr)
        return 1
