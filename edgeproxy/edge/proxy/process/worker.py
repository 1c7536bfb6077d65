"""The worker: a process of the data plane. It serves its supervisor's configuration on sockets that it inherits.

It never waits for its supervisor. If the supervisor dies, the worker serves on until another supervisor serves in its
place or a deadline passes. Then the worker accepts queued connections, finishes its requests, and leaves.
"""

import argparse
import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from edgeproxy.base import event_loop, log
from edgeproxy.base.allocator import WORKER_ALLOCATION, tune_allocation
from edgeproxy.base.client_tls import ClientTls
from edgeproxy.base.trust import TlsFilesError
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError
from edgeproxy.edge.counters.columns import NoFreeColumnError
from edgeproxy.edge.counters.control import HEARTBEAT_FRESH_SECONDS
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.index import RowUnavailableError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.levels import AHEAD_SECONDS_MAX
from edgeproxy.edge.proxy.connections.connector import UpstreamConnector
from edgeproxy.edge.proxy.exchange.claim_waiter import ClaimWaiter
from edgeproxy.edge.proxy.exchange.overload import Overload
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
from edgeproxy.edge.proxy.exchange.runtime import Runtime
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from edgeproxy.edge.proxy.observation.span_buffer import SpanBuffer
from edgeproxy.edge.proxy.process.acceptor import Acceptor
from edgeproxy.edge.proxy.process.control_handler import ControlHandler, describe_failure
from edgeproxy.edge.proxy.process.generations import Generations
from edgeproxy.edge.proxy.process.handshake_filter import admit_handshakes, refuse_handshakes
from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
from edgeproxy.edge.proxy.transport.server_tls import ServerTls
from edgeproxy.edge.proxy.transport.socket_input import has_left

ORPHAN_CHECK_SECONDS = 0.25
"""Seconds between two checks of an orphan for a supervisor that serves in place of its own."""

INTRODUCTION_SECONDS = 2.0
"""Seconds that a worker waits at most for the addresses of upstreams before it serves."""

LAST_LINES_SECONDS = 0.5
"""Seconds that the access log may take for its last lines when a worker leaves."""

SWITCH_SECONDS = 0.0005
"""Seconds that another thread may run while the loop waits for its turn. A configuration is prepared in a thread."""

BACKLOG = 4096
"""Connections that may wait to be accepted."""
LEFT_PER_TAKEN = 8
"""Connections that may be taken from the queue for each one that is accepted, because clients may have left."""


class Worker:
    """A worker process: its listeners, its runtime, its configurations. It lives in one event loop."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.runtime = runtime = Runtime(store)
        self.generations = Generations(runtime, store)
        runtime.connector = UpstreamConnector(runtime)
        connections = runtime.connections
        runtime.overload = Overload(
            self.generations.count_requests,
            lambda: len(connections.clients) + connections.streams,
            self.take_queued,
            runtime.write_batching.time_turn,
            self._observe_lag,
            connections.count_by_address,
        )
        runtime.turns.accept = self.take_queued
        self._listening: list[tuple[asyncio.Server, socket.socket, Acceptor]] = []
        self._inward: list[ServerTls] = []
        self._lag_seconds = runtime.metrics.loop_lag_seconds()
        self._log = log.get_logger()
        runtime.deadlines.add_sweep(self._sweep)

    # ---- life

    async def listen(
        self,
        listening: Sequence[socket.socket],
        settings: Sequence[Listener],
        inward: Sequence[ServerTls | None],
    ) -> None:
        """Serve on these sockets, which the workers share, each with the settings of its listener and its TLS."""
        loop = asyncio.get_running_loop()
        # Other workers may have started since this one has joined, and a sweep comes only after half a second.
        self.store.refresh_columns()
        self._inward = [server for server in inward if server is not None]
        for each, listener, tls in zip(listening, settings, inward, strict=True):
            acceptor = Acceptor(self.runtime, listener, tls)
            # The loop closes the socket that it gets. This copy is for connections still queued then.
            queue = each.dup()
            queue.setblocking(False)
            server = await loop.create_server(acceptor.build_protocol, sock=each, backlog=BACKLOG)
            self._listening.append((server, queue, acceptor))
        self.runtime.deadlines.start()
        self.runtime.overload.start(self.runtime.snapshot.overload)

    def _observe_lag(self, late: float) -> None:
        """Record how late the loop was for a sample: at least one turn took that long."""
        self._lag_seconds.observe(late)
        self.runtime.turns.report_long(late)

    @property
    def queues(self) -> list[socket.socket]:
        """The sockets that it accepts from."""
        return [queue for _, queue, _ in self._listening]

    def take_queued(self, most: int) -> None:
        """Accept at most `most` of the waiting connections, for each listener.

        The loop itself accepts one connection in a turn (libuv 1.48), and that is slow if turns are long. Connections
        whose clients have already left are closed and do not count.
        """
        loop = asyncio.get_running_loop()
        for _, queue, acceptor in self._listening:
            taken = 0
            for _ in range(LEFT_PER_TAKEN * most):
                accepted = _accept_next(queue)
                if accepted is None:
                    break
                if has_left(accepted):
                    accepted.close()
                    continue
                self.runtime.tasks.start("accept", loop.connect_accepted_socket(acceptor.build_protocol, accepted))
                taken += 1
                if taken == most:
                    break

    async def drain(self, seconds: float) -> None:
        """Accept the queued connections, finish current requests, and accept nothing new.

        Cut the rest after `seconds`.
        """
        loop = asyncio.get_running_loop()
        self.runtime.connections.draining = True
        for server, queue, acceptor in self._listening:
            server.close()
            with queue:
                while (accepted := _accept_next(queue)) is not None:
                    await loop.connect_accepted_socket(acceptor.build_protocol, accepted)
        self._listening.clear()
        # Connections that the loop itself accepted join in its next turn. They must not find that the worker has left.
        await asyncio.sleep(0)
        await self.runtime.connections.drain(seconds)
        self.runtime.connections.end_readers()

    async def reload_certificates(self) -> None:
        """Reload all certificates. If one cannot be used, the previous one stays.

        A context takes milliseconds to build, so each is built in a thread, which alternates with the loop.
        """
        loaded: list[ServerTls | ClientTls] = [*self._inward, *self.generations.list_upstream_tls()]
        for server in loaded:
            try:
                server.use_context(await asyncio.to_thread(server.create_context))
            except TlsFilesError as error:
                self._log.error("certificates not loaded, those before stay", why=str(error))

    async def wait_for_endpoints(self, seconds: float) -> None:
        """Wait until the supervisor has sent endpoints, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.generations.endpoints_known.wait()
        except TimeoutError:
            self._log.warning("the supervisor told of no addresses")

    def _sweep(self) -> None:
        """Take over external changes, and publish this worker's state; called twice a second."""
        runtime = self.runtime
        offset = self.store.offset
        if runtime.offset - offset > AHEAD_SECONDS_MAX:
            # The clock jumped. A slewed clock falls behind by milliseconds only, which levels tolerate.
            self.store.recover_clock()
        runtime.tick(offset)
        self.store.refresh_columns()
        now = monotonic()
        runtime.snapshot.sweep(now)
        runtime.snapshot.refresh_hosts()
        runtime.connections.sweep(now)
        runtime.metrics.settle()
        runtime.metrics.set_upstream_connections(runtime.connections.upstreams)
        runtime.held.refresh()
        runtime.metrics.set_held_bytes(runtime.held.held_bytes)
        runtime.metrics.set_http2_connections(len(runtime.connections.http2_clients))
        access = runtime.snapshot.access_log
        if access is not None:
            access.flush()
            self.generations.report_lost_lines(access)
        runtime.spans.flush()
        runtime.metrics.errors.flush()
        self.generations.sweep()

    async def close(self) -> None:
        """Stop background work, and write buffered data. Nothing is served any more."""
        runtime = self.runtime
        await runtime.tasks.cancel()
        runtime.deadlines.stop()
        runtime.overload.stop()
        self.close_access_logs()
        runtime.metrics.settle()
        self.store.close()

    def close_access_logs(self) -> None:
        """Write the lines that access logs still hold."""
        until = monotonic() + LAST_LINES_SECONDS
        for access in self.generations.list_access_logs():
            access.close(max(0.0, until - monotonic()))
            self.generations.report_lost_lines(access)


def _accept_next(queue: socket.socket) -> socket.socket | None:
    """Accept the next waiting connection; None if there is none."""
    try:
        accepted, _ = queue.accept()
    except OSError:  # None waits, or there is no free descriptor to accept one.
        return None
    accepted.setblocking(False)
    return accepted


async def serve(end: socket.socket, memory_end: socket.socket, listening: Sequence[socket.socket]) -> int:
    """Run a worker from its configuration to its end. Return its exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    channel = await Channel.from_socket(end, messages.WORKER, memory_end)
    start = await channel.receive()
    if not isinstance(start, messages.Start):
        raise ChannelClosedError(f"{type(start).__name__} is not what a worker is told first")
    try:
        worker, listeners, inward = create_worker(start, channel)
    except (NoFreeColumnError, TableError) as error:
        await channel.send(messages.Failed(str(error), isinstance(error, NoFreeColumnError)))
        return 1
    except (TlsFilesError, RowUnavailableError) as error:
        await channel.send(messages.Failed(describe_failure(error)))
        return 1
    store, runtime = worker.store, worker.runtime
    column = store.column
    assert column is not None
    leaving = runtime.tasks.start(
        "channel", wait_until_drain(channel, worker, start.token, start.orphan_deadline, stop)
    )
    # Also after a failure, so that the supervisor replaces this worker, which would hear nothing any more.
    leaving.add_done_callback(lambda _: stop.set())
    token = start.token
    del start  # It has the settings.
    if runtime.snapshot.lacks_addresses():
        # The supervisor sends them right after the configuration. Earlier requests would have no endpoint.
        await worker.wait_for_endpoints(INTRODUCTION_SECONDS)
    if not stop.is_set():
        await worker.listen(listening, listeners, inward)
    _tune_interpreter()
    try:
        await channel.send(messages.Ready(column))
    except ChannelClosedError:
        pass  # Clients may have connected already.
    await stop.wait()
    store.withdraw_orphan(token)
    deadline = leaving.result() if leaving.done() and leaving.exception() is None else None
    await worker.drain(runtime.snapshot.drain_seconds if deadline is None else deadline)
    try:
        for message in (runtime.spans.take(), runtime.metrics.errors.take()):
            if message is not None:
                await channel.send(message)
    except ChannelClosedError:
        pass  # Without a supervisor no process exports spans or reports errors.
    channel.close()
    await worker.close()
    return 0


def _tune_interpreter() -> None:
    """Reduce the cost of garbage collection and thread switches for requests."""
    # The objects of the imports live as long as the process, so the collector need not examine them again.
    gc.collect()
    gc.freeze()
    # A run over 10,000 new objects takes 10 to 20 ms during a flood. A lower threshold would start runs in ordinary
    # bursts: 200 concurrent requests have as many objects. Surviving objects are hardly ever examined again.
    gc.set_threshold(10_000, 1_000, 100)
    sys.setswitchinterval(SWITCH_SECONDS)


def create_worker(
    start: messages.Start, channel: Channel[messages.ToSupervisor, messages.ToWorker]
) -> tuple[Worker, Sequence[Listener], list[ServerTls | None]]:
    """Create the worker of a configuration. Return it with the arguments of `Worker.listen` for each listener.

    Raises NoFreeColumnError, TableError, TlsFilesError or RowUnavailableError.
    """
    tables = start.tables_dir
    store = Store.join(Path(start.state), tables_dir=None if tables is None else Path(tables))
    worker = Worker(store)
    runtime = worker.runtime
    worker.generations.number = start.number
    draft = PreparedConfiguration(start.settings, memory=channel.memory)
    runtime.claim_waiter, runtime.key_lookup = ClaimWaiter(channel.try_send), KeyLookup(channel.try_send)
    runtime.spans, runtime.metrics.errors.offer = SpanBuffer(channel.try_send), channel.try_send
    with store.starting():
        runtime.serve_snapshot(
            Snapshot(draft, store, runtime.metrics, sharing=runtime.claim_waiter, key_lookup=runtime.key_lookup)
        )
    listeners = draft.settings.listen
    inward = [
        None if listener.tls is None else ServerTls(listener.tls, worker.store.state, http2=listener.speaks_http2)
        for listener in listeners
    ]
    return worker, listeners, inward


async def wait_until_drain(
    channel: Channel[messages.ToSupervisor, messages.ToWorker],
    worker: Worker,
    own: int,
    orphan_deadline: float,
    stop: asyncio.Event,
) -> float | None:
    """Wait until this worker must leave. Return the seconds of its drain, or None if no supervisor set them.

    `own` is the token of its supervisor. Without a supervisor it serves on for at most `orphan_deadline` seconds.
    """
    logger, runtime = log.get_logger(), worker.runtime
    handler = ControlHandler(channel, runtime, worker.generations, worker.reload_certificates)
    runtime.tasks.start("orders", handler.follow_orders())
    runtime.tasks.start("alive", handler.send_heartbeats())
    try:
        deadline = await handler.receive_until_drain()
        runtime.tasks.start("the hub's answers", handler.receive_until_closed())
        stop.set()
        return deadline
    except ChannelClosedError as error:
        logger.warning("the supervisor is lost; serving on until another one serves", why=str(error))
        channel.close()
    handler.on_supervisor_lost()
    leave_by = monotonic() + orphan_deadline
    while monotonic() < leave_by and not stop.is_set():
        token, age = worker.store.control.read_heartbeat(monotonic())
        if token not in (0, own) and age < HEARTBEAT_FRESH_SECONDS:
            logger.info("another supervisor serves; leaving")
            break
        if not worker.store.declare_orphan(own, last=token == own):
            logger.info("enough others serve on without a supervisor; leaving")
            break
        # The last other worker on these sockets may have left before this one could know.
        admit_handshakes(worker.queues)
        await asyncio.sleep(ORPHAN_CHECK_SECONDS)
    if not worker.store.withdraw_orphan(own):
        # The last process to close the sockets resets their queued connections. Another supervisor has sockets of its
        # own.
        refuse_handshakes(worker.queues)
    stop.set()
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process: `--channel FD --memory FD --listen FD,FD`, descriptors that the supervisor passed."""
    parser = argparse.ArgumentParser(prog="edgeproxy.edge.proxy", description="A worker; started by its supervisor.")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="the end for memory that belongs to messages")
    parser.add_argument("--listen", required=True, help="descriptors, separated by commas")
    options = parser.parse_args(arguments)
    tune_allocation(WORKER_ALLOCATION)
    return run(options.channel, options.memory, [int(number) for number in options.listen.split(",")])


def run(channel: int, memory: int, listening: Sequence[int]) -> int:
    """Run a worker on these descriptors, and return its exit code."""
    log.configure("worker")
    # SIGHUP requests a reload from the supervisor. A SIGHUP to all processes of the edge must not end the workers.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        end, memory_end, *accepting = (socket.socket(fileno=each) for each in (channel, memory, *listening))
        return event_loop.run(serve(end, memory_end, accepting))
    except ChannelClosedError as error:
        print(f"edgeproxy.edge.proxy: the supervisor did not say what to serve: {error}", file=sys.stderr)
        return 1
