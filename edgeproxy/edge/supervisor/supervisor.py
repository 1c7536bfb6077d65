"""The supervisor keeps workers running, maintains the tables and answers the admin listener."""

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from edgeproxy.base import log
from edgeproxy.base.build import describe_build
from edgeproxy.base.exit_deadline import end_after_signals
from edgeproxy.base.process_age import read_process_age
from edgeproxy.base.sealed_memory import SealedMemory
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.directory import KeyOwner
from edgeproxy.config.edge import load as edge_load
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.edge import messages
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.directory.directories import Directories
from edgeproxy.edge.directory.hub_reader import HubReader
from edgeproxy.edge.directory.key_lookups import Reply
from edgeproxy.edge.messages import ErrorsCounted, FetchIssuerKeys, FromLeader, LookUpKeys, SpansEnded, Start
from edgeproxy.edge.proxy.process.handshake_filter import refuse_handshakes
from edgeproxy.edge.supervisor import sockets, state
from edgeproxy.edge.supervisor.accounting import Accounting
from edgeproxy.edge.supervisor.acme import AcmeRenewals
from edgeproxy.edge.supervisor.admin import Admin
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.changeover import Changeover
from edgeproxy.edge.supervisor.destinations import Destinations
from edgeproxy.edge.supervisor.issuers import IssuerKeyFetcher
from edgeproxy.edge.supervisor.ledger_counts import LedgerCountWriter
from edgeproxy.edge.supervisor.limit_usage import LimitUsageReporter
from edgeproxy.edge.supervisor.probe import Prober
from edgeproxy.edge.supervisor.process import ForwardedMessage
from edgeproxy.edge.supervisor.reload import Reloads, follow_each
from edgeproxy.edge.supervisor.serving import NO_SUPERVISOR, other_serves
from edgeproxy.edge.supervisor.status import Status
from edgeproxy.edge.supervisor.systemd import Systemd
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.traces import Traces
from edgeproxy.edge.supervisor.traffic import TrafficReporter
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.watch import watch_files
from edgeproxy.edge.supervisor.worker_template import WorkerTemplate
from edgeproxy.edge.supervisor.workers import Workers
from edgeproxy.edge.sync.coordinator import Coordinator
from edgeproxy.edge.usage import answer
from edgeproxy.wire import limit_usage, traffic_report
from edgeproxy.wire.limit_usage import LimitUsageReport, dump_limit_usage
from edgeproxy.wire.traffic_report import TrafficReport, dump_report

TICK_SECONDS = 1.0
"""Seconds between two heartbeats, and between two slices of table maintenance."""

COLUMN_CHECK_SECONDS = 0.25
"""Seconds between two checks whether columns that workers need have become free."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that make the edge drain and end."""

END_SECONDS = 8.0
"""The process ends this many seconds after the drain even if something hangs. The counts are in the tables by then, and
service managers wait for 10 s.
"""

ORPHAN_SECONDS = 600.0
"""Seconds that a worker serves without a supervisor if no other takes over. None can take over `edgeproxy quick`."""


class Supervisor:
    """One supervisor, from its start to its end. `token` is its name in the control file."""

    def __init__(
        self,
        settings: EdgeSettings,
        store: Store,
        listening: Sequence[socket.socket],
        admin: Admin,
        config_path: Path | None,
        command: Sequence[str],
        watched: Mapping[str, FileSignature] | None = None,
        template: WorkerTemplate | None = None,
    ) -> None:
        self._config_path = config_path
        self._store = store
        self._listening = listening
        self._admin = admin
        # 0 is NO_SUPERVISOR in the control file.
        self._token = secrets.randbits(64) or 1
        self._coordinator = Coordinator(store, settings.hub, self._send_to_workers) if settings.hub.is_shared else None
        self._workers = Workers(
            settings.workers,
            command,
            listening,
            messages.pack_for_workers(*self._start(1, settings)),
            on_message=self._handle_message,
            columns_will_free=store.identity.try_acquire,
            template=template,
        )
        self._hub_reader = HubReader(settings.hub)
        self._directories = Directories(
            settings,
            self._hub_reader.ask,
            self._workers.add,
            self._workers.publish,
            self._record_used_keys,
        )
        self._ledger_counts = LedgerCountWriter(store, settings, self._hub_reader.ask)
        self._issuers = IssuerKeyFetcher(settings.state, settings.issuers, self._workers.publish)
        self._traces = Traces(settings.tracing, settings.region)
        prober = Prober(settings.upstreams, settings.trust.files)
        self._table_reader = TableReader(store)
        self._upstreams = Upstreams(
            settings.upstreams,
            self._workers.publish,
            prober,
            refused=self._table_reader.refused,
            trusted=settings.trust.files,
        )
        self._certificates = Certificates(settings, self._renew)
        self._changeover = Changeover(settings, self._start, self._workers, self._upstreams, self._certificates, prober)
        read = (
            None
            if config_path is None
            else partial(edge_load.try_load_edge, config_path, os.environ, also=state.log_faults)
        )
        self._reloads = Reloads(settings, read, self._apply, on_reload=self._reloading, signatures=watched)
        self._watched = watched is not None
        self._acme = AcmeRenewals(
            settings,
            lambda: self._reloads.serving,
            store.identity.try_acquire,
            self._workers.publish,
            self._workers.wait_until_challenges_served,
        )
        self._accounting = Accounting(
            store, self._table_reader, settings.region, Destinations.from_settings(settings), self._sync_age
        )
        self._traffic = TrafficReporter(
            self._table_reader,
            settings.region,
            self._send_traffic,
            residencies=self._accounting.list_residencies,
        )
        self._status = Status(
            self._reloads,
            self._workers,
            self._table_reader,
            self._upstreams,
            self._certificates,
            self._accounting,
            self._directories,
            self._traces,
            self._issuers,
            self._acme,
            self._coordinator,
        )
        self._limit_usage = LimitUsageReporter(
            self._status.list_policies,
            settings.region,
            self._send_limit_usage,
            self._accounting.list_residencies,
        )
        self._systemd = Systemd()
        self._tasks = Tasks()
        self._stop = asyncio.Event()
        self._log = log.get_logger()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, and drain. Raises WorkersFailedError if no worker could start."""
        self._handle_signals()
        self._log.info(
            "edge starting",
            config=None if self._config_path is None else str(self._config_path),
            listen=[str(sockets.get_address(one)) for one in self._listening],
            admin=None if self._admin.address is None else str(self._admin.address),
            workers=self._workers.places,
            state=str(self._reloads.serving.state),
        )
        # Open from the first moment, so that an edge that cannot start says why at `/status`.
        await self._admin.open(self._status, self._table_reader, self._reloads)
        await self._accounting.begin()
        if self._coordinator is not None:
            self._coordinator.begin()
        self._ledger_counts.begin()
        self._traces.exporter.begin()
        self._tasks.start("heartbeat", self._beat_heart())
        self._tasks.start("tend", self._maintain_tables())
        self._tasks.start("traffic", self._traffic.run())
        self._tasks.start("limit usage", self._limit_usage.run())
        self._tasks.start("reload", self._reloads.run())
        if self._watched:
            self._tasks.start("watch", watch_files(self._reloads))
        self._tasks.start("vitals", self._status.vitals.watch())
        if self._systemd.watchdog is not None:
            self._tasks.start("watchdog", self._notify_watchdog(self._systemd.watchdog))
        try:
            await self._run_until_stopped()
        finally:
            await self._shut_down()

    async def _begin(self) -> None:
        # The change-over starts the workers, with the customers, keys and certificates that are there by then.
        await self._directories.begin(read_process_age())
        await self._issuers.begin()
        await self._acme.begin()
        await self._wait_for_columns()
        await self._changeover.begin()
        self._tasks.start("certificates", self._certificates.watch())

    async def _wait_for_columns(self) -> None:
        """Wait until each worker has a free column, if the missing columns will become free.

        They will if no other supervisor lives: then orphaned workers hold them. Orphans above the permitted number
        leave within the time of a drain.
        """
        places, status = self._workers.places, self._status
        while (free := await self._table_reader.run_exclusively(self._store.free_columns)) < places:
            if not self._store.identity.try_acquire():
                break
            if not status.lacking:
                self._log.warning(
                    "waiting until workers of supervisors that were killed have left", lacking=places - free
                )
            status.lacking = places - free
            await asyncio.sleep(COLUMN_CHECK_SECONDS)
        status.lacking = 0

    async def _apply(self, settings: EdgeSettings) -> Sequence[str]:
        trust = self._reloads.serving.trust
        # Only the change-over can be refused. The parts below follow a configuration that is in force already.
        whys = await self._changeover(settings)
        if not whys:
            if settings.trust != trust:
                self._accounting.renew()
            self._accounting.follow(Destinations.from_settings(settings))
            coordinator = self._coordinator
            await follow_each(
                {
                    **({} if coordinator is None else {"hub": lambda: coordinator.follow(settings.hub)}),
                    "hub reader": lambda: self._hub_reader.follow(settings.hub),
                    "directories": lambda: self._directories.follow(settings),
                    "ledger counts": lambda: self._ledger_counts.follow(settings),
                    "issuers": lambda: self._issuers.follow(settings.issuers),
                    "tracing": lambda: self._traces.exporter.follow(settings.tracing),
                }
            )
        return whys

    async def _send_traffic(self, report: TrafficReport, residency: str) -> answer.Reply | None:
        return await self._accounting.send_report(traffic_report.PATH, dump_report(report), residency)

    async def _send_limit_usage(self, report: LimitUsageReport, residency: str) -> answer.Reply | None:
        return await self._accounting.send_report(limit_usage.PATH, dump_limit_usage(report), residency)

    def _send_to_workers(self, message: FromLeader) -> None:
        self._workers.send(message)

    def _handle_message(self, message: ForwardedMessage, reply: Reply) -> None:
        """Handle a worker's message that is not about the worker itself."""
        if isinstance(message, LookUpKeys):
            self._directories.queue_lookup(message, reply)
        elif isinstance(message, FetchIssuerKeys):
            self._issuers.hurry(message.issuer)
        elif isinstance(message, SpansEnded):
            self._traces.add(message)
        elif isinstance(message, ErrorsCounted):
            self._traffic.record_errors(message)
        elif self._coordinator is not None:
            self._coordinator.record_uses(message)

    def _record_used_keys(self, known: Mapping[bytes, KeyOwner]) -> None:
        """Record that these keys of the directory are in use, each for the collector of its customer."""
        self._accounting.record_used_keys(known, time.time())

    def _sync_age(self) -> float | None:
        return None if self._coordinator is None else self._coordinator.compute_delay_seconds()

    def _renew(self) -> None:
        self._changeover.renew()
        self._accounting.renew()

    def _reloading(self, under_way: bool) -> None:
        """Notify the service manager of a reload.

        It knows by itself that an edge that starts or drains does not serve.
        """
        if self._status.phase == "serving":
            if under_way:
                self._systemd.reloading()
            else:
                self._systemd.ready(self._describe_status())

    def _start(self, number: int, settings: EdgeSettings) -> tuple[Start, SealedMemory | None]:
        """Build the message that a worker starts with, and the memory for it."""
        tables = settings.tables.dir
        dumped, memory = edge_load.share_settings(settings)
        start = Start(
            number,
            settings=dumped,
            state=str(settings.state),
            tables_dir=None if tables is None else str(tables),
            token=self._token,
            # Without a file this is `edgeproxy quick`, whose state no other supervisor takes over.
            orphan_deadline=ORPHAN_SECONDS if self._config_path else 0.0,
        )
        return start, memory

    async def _wait_for_stop(self) -> None:
        await self._stop.wait()

    async def _run_until_stopped(self) -> None:
        stop = self._tasks.start("stop", self._wait_for_stop())
        begun = self._tasks.start("begin", self._begin())
        await asyncio.wait([begun, stop], return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            # Raises its error, which ends the edge.
            begun.result()
        await asyncio.wait([self._workers.first_ready, stop], return_when=asyncio.FIRST_COMPLETED)
        if self._workers.first_ready.done():
            self._workers.first_ready.result()
            self._status.phase = "serving"
            self._store.control.write_heartbeat(self._token, monotonic())
            self._admin.serve()
            self._systemd.ready(self._describe_status())
            self._log.info("edge serving", workers=self._workers.ready, build=describe_build())
        await stop

    async def _shut_down(self) -> None:
        self._status.phase = "draining"
        self._reloads.end()
        seconds = self._reloads.serving.drain
        self._systemd.stopping(self._describe_status())
        self._log.info("edge draining", seconds=seconds)
        # Otherwise the address of the admin listener stays open, because `/status` and metrics matter during a drain.
        # Another supervisor listens at this address, too, and answers there from now on.
        if self._other_serves():
            await self._admin.stop_accepting()
        self._return_claim()
        # Before the workers close their sockets: the last one to close resets queued connections, and only workers
        # accept.
        refuse_handshakes(self._listening)
        sockets.close_all(self._listening)
        await self._workers.drain(seconds)
        # Concurrently: each may wait for a peer, or a disk, until its own time is over.
        await asyncio.gather(
            self._traces.exporter.end(),
            self._accounting.end(),
            self._directories.end(),
            self._ledger_counts.end(),
            self._issuers.end(),
            self._acme.end(),
        )
        # After the directories and the ledger counts, which ask it until they have ended.
        await self._hub_reader.close()
        if self._coordinator is not None:
            await self._coordinator.end()
        await self._tasks.cancel()
        await self._upstreams.end()
        await self._admin.close()
        self._log.info("edge stopped")

    def _return_claim(self) -> None:
        """Let an earlier supervisor serve again at once.

        If it were killed while this one still seems to serve, its workers would leave, and no worker would be left.
        """
        control = self._store.control
        if control.read_heartbeat(monotonic())[0] == self._token and not self._store.identity.try_acquire():
            control.write_heartbeat(NO_SUPERVISOR, monotonic())

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        # Without a file there is nothing to reload, and SIGHUP means that the terminal was closed.
        loop.add_signal_handler(signal.SIGHUP, self._reloads.request if self._config_path else self._stop.set)
        end_after_signals(STOP_SIGNALS, lambda: self._reloads.serving.drain + END_SECONDS, self._workers.kill)
        # The process that loaded the configuration may have blocked the signal until this handler exists.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def _beat_heart(self) -> None:
        """Record a heartbeat every second, unless a newer supervisor serves."""
        while True:
            self._systemd.status(self._describe_status())
            if self._status.phase == "serving" and not self._other_serves():
                # Needed after a newer supervisor, which moved the path of the socket to itself, has ended.
                self._admin.take_socket()
                self._store.control.write_heartbeat(self._token, monotonic())
            await asyncio.sleep(TICK_SECONDS)

    async def _notify_watchdog(self, every: float) -> None:
        """Notify the service manager's watchdog for ever."""
        while True:
            self._systemd.alive()
            await asyncio.sleep(every)

    def _describe_status(self) -> str:
        """Describe the phase and the workers in a line."""
        return f"{self._status.phase}: {self._workers.ready} of {self._workers.places} workers ready"

    async def _maintain_tables(self) -> None:
        """Maintain the tables every second, if no other supervisor does."""
        tends = False
        logged = ""
        while True:
            try:
                tended = await self._table_reader.maintain()
            except OSError as error:
                # Once for each reason: this runs every second.
                if str(error) != logged:
                    logged = str(error)
                    self._log.error("the tables could not be tended", why=logged)
            else:
                logged = ""
                if tended.holder and not tends:
                    tends = True
                    self._log.info("tending the tables of this state directory")
                if tended.folded or tended.removed:
                    self._log.info("table files retired", folded=tended.folded, removed=tended.removed)
            await asyncio.sleep(TICK_SECONDS)

    def _other_serves(self) -> bool:
        return other_serves(self._token, *self._store.control.read_heartbeat(monotonic()))
