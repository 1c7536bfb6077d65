"""The worker: a process of the data plane. It serves what its supervisor configures, on sockets it was handed.

It never waits for its supervisor. If that dies the worker serves on, until another supervisor serves in its place
or a deadline passes; then it takes what is queued, finishes what it has begun, and leaves.
"""

import argparse
import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from edgeproxy import log
from edgeproxy.channel import Channel, ChannelClosed
from edgeproxy.config import load
from edgeproxy.counters.columns import NoFreeColumn
from edgeproxy.counters.file import TableError
from edgeproxy.counters.store import Store
from edgeproxy.errors import Fault
from edgeproxy.proxy.client import Client
from edgeproxy.proxy.counts import Counts
from edgeproxy.proxy.deadlines import NEVER, Deadlines
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.ids import Ids
from edgeproxy.proxy.server import Server
from edgeproxy.proxy.snapshot import Snapshot
from edgeproxy.tasks import Tasks

COMPLAIN = 10.0
"""Seconds between two log lines about one endpoint that cannot be reached."""

ORPHAN_LOOK = 0.25
"""Seconds between two looks of an orphan for a supervisor that serves in its own one's place."""

BACKLOG = 4096
"""Connections that may wait to be accepted."""

HEARTBEAT_FRESH = 5.0
"""Seconds after which a supervisor that did not beat is taken for dead."""


class Worker:
    """What one worker process holds. Lives in one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.counts = Counts(store)
        self.ids = Ids()
        self.deadlines = Deadlines()
        self.tasks = Tasks()
        self.offset = store.offset
        self.date = date_field()
        """The Date line of answers of the edge's own (RFC 9110 section 6.6.1), made at every sweep."""
        self.draining = False
        self.snapshot: Snapshot
        self._clients: set[Client] = set()
        self._upstream_connections = 0
        self._listening: list[tuple[asyncio.Server, socket.socket]] = []
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
        self.deadlines.everybody.discard(client)
        if not self._clients:
            self._empty.set()

    def reached(self, server: Server) -> None:
        """A connection to an upstream is open."""
        self._upstream_connections += 1
        self.deadlines.everybody.add(server)

    def lost(self, server: Server) -> None:
        """A connection to an upstream is gone."""
        self._upstream_connections -= 1
        self.deadlines.everybody.discard(server)

    def connect(self, exchange: Exchange) -> None:
        """Open a connection for this exchange and send its request over it."""
        exchange.client.deadline = NEVER  # The connection attempt has a deadline of its own.
        self.tasks.start("connect", self._connect(exchange))

    async def _connect(self, exchange: Exchange) -> None:
        client = exchange.client
        while client.exchange is exchange:
            endpoint = exchange.endpoint
            service = endpoint.service
            try:
                async with asyncio.timeout(service.connect_timeout):
                    server = await self._dial(endpoint.host, endpoint.port, Server(self, endpoint))
            except TimeoutError:
                fault = Fault("connection_timeout", "The upstream did not take the connection in time", status=504)
                why = f"no connection within {service.connect_timeout:g} s"
            except socket.gaierror as unknown:
                fault = Fault("dns_error", "The upstream's name could not be resolved")
                why = str(unknown)
            except (OSError, UnicodeError) as refusal:  # The latter is how a name that cannot be one fails.
                fault = Fault("connection_refused", "The upstream could not be connected to")
                why = str(refusal)
            else:
                exchange.connected(server)
                return
            # Which endpoint, and why, is the operator's business and not the client's.
            self._seldom.error("upstream unreachable", f"{endpoint.host}:{endpoint.port}", why=why)
            if client.exchange is exchange:
                exchange.unreachable(fault)

    async def _dial(self, host: str, port: int, server: Server) -> Server:
        await asyncio.get_running_loop().create_connection(lambda: server, host, port)
        return server

    # ---- life

    async def listen(self, listening: Sequence[socket.socket]) -> None:
        """Serve on these sockets, which other workers share."""
        loop = asyncio.get_running_loop()
        for each in listening:
            # The loop closes the socket that it is given; this one is for what is queued when it has done so.
            queue = each.dup()
            queue.setblocking(False)
            self._listening.append((await loop.create_server(lambda: Client(self), sock=each, backlog=BACKLOG), queue))
        self.deadlines.start()

    async def drain(self, seconds: float) -> None:
        """Take what is queued, finish what has begun, accept nothing new; what is left after `seconds` is cut."""
        loop = asyncio.get_running_loop()
        self.draining = True
        for server, queue in self._listening:
            server.close()
            with queue:
                while (accepted := _accept(queue)) is not None:
                    await loop.connect_accepted_socket(lambda: Client(self), accepted)
        self._listening.clear()
        # What the loop itself has accepted joins in its next turn, and must not find an empty worker gone.
        await asyncio.sleep(0)
        for client in tuple(self._clients):
            client.drain()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            self._log.warning("connections cut at the end of the drain", connections=len(self._clients))
            for client in tuple(self._clients):
                client.abort()

    def _look_around(self) -> None:
        """Twice a second: what changed outside, and what is to be shown of what is inside."""
        self.offset = self.store.offset
        self.date = date_field()
        self.store.columns_changed()
        self.counts.connections("client", len(self._clients))
        self.counts.connections("upstream", self._upstream_connections)


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
        await channel.send({"type": "failed", "why": str(failure)})
        return 1
    worker = Worker(store)
    settings = load.restore(config["settings"].encode())
    worker.snapshot = Snapshot(settings, store, worker.counts)
    await worker.listen(listening)
    # What has been made up to here lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    await channel.send({"type": "ready", "column": store.column})
    told = worker.tasks.start("channel", until_told(channel, store, config, stop))
    await stop.wait()
    deadline = told.result() if told.done() else None
    await worker.drain(settings.drain if deadline is None else deadline)
    try:
        await channel.send({"type": "left"})
    except ChannelClosed:
        pass
    channel.close()
    await worker.tasks.cancel()
    worker.deadlines.stop()
    store.close()
    return 0


async def until_told(channel: Channel, store: Store, config: dict[str, Any], stop: asyncio.Event) -> float | None:
    """Wait until this worker is to leave; returns the seconds that it has for it, None where nobody said."""
    logger = log.get()
    try:
        while True:
            message = await channel.receive()
            if message["type"] == "drain":
                stop.set()
                return float(message["deadline"])
    except ChannelClosed:
        logger.warning("the supervisor is gone; serving on until another one serves")
    leave_by = monotonic() + config["orphan_deadline"]
    while monotonic() < leave_by:
        token, age = store.control.serving(monotonic())
        if token not in (0, config["token"]) and age < HEARTBEAT_FRESH:
            logger.info("another supervisor serves; leaving")
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
    listening = [socket.socket(fileno=int(number)) for number in options.listen.split(",")]
    try:
        return uvloop.run(serve(socket.socket(fileno=options.channel), listening))
    except ChannelClosed:
        print("edgeproxy.proxy: the supervisor is gone before it said what to serve", file=sys.stderr)
        return 1
