"""The supervisor prepares tables, opens sockets, keeps workers running and answers the admin listener."""

import asyncio
import os
import platform
import secrets
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.base.web_listener import raise_descriptor_limit
from edgeproxy.config.addresses import Address
from edgeproxy.config.edge import load as edge_load
from edgeproxy.config.edge.settings import Settings
from edgeproxy.config.file_signatures import FileSignature
from edgeproxy.edge import messages
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.directory.follower import DirectoryFollower, Reply
from edgeproxy.edge.messages import FetchIssuerKeys, FromLeader, LimitsUsed, LookUpKeys, Start
from edgeproxy.edge.supervisor import sockets, state
from edgeproxy.edge.supervisor.accounting import Accounting
from edgeproxy.edge.supervisor.admin import Admin
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.changeover import Changeover
from edgeproxy.edge.supervisor.issuers import IssuerKeyFetcher
from edgeproxy.edge.supervisor.ledger_counts import LedgerCountWriter
from edgeproxy.edge.supervisor.probe import Prober
from edgeproxy.edge.supervisor.process import WORKER_COMMAND
from edgeproxy.edge.supervisor.reload import Reloads
from edgeproxy.edge.supervisor.serving import NO_SUPERVISOR, other_serves
from edgeproxy.edge.supervisor.status import Status
from edgeproxy.edge.supervisor.systemd import Systemd
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.watch import watch_files
from edgeproxy.edge.supervisor.workers import Workers, WorkersFailedError
from edgeproxy.edge.sync.coordinator import Coordinator
from edgeproxy.hub.calls import Argument
from edgeproxy.hub.redis import HubUnavailableError

TICK_SECONDS = 1.0
"""Seconds between two heartbeats, and between two slices of table maintenance."""

COLUMN_CHECK_SECONDS = 0.25
"""Seconds between two checks whether columns that workers need have become free."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that make the edge drain and end."""

ORPHAN_SECONDS = 600.0
"""Seconds that a worker serves without a supervisor where no other takes over. None can for `edgeproxy quick`."""


class Supervisor:
    """One supervisor, from its start to its end. `token` is its name in the control file."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        listening: Sequence[socket.socket],
        admin: Admin,
        config_path: Path | None,
        command: Sequence[str],
        watched: Mapping[str, FileSignature] | None = None,
    ) -> None:
        self._config_path = config_path
        self._store = store
        self._listening = listening
        self._admin = admin
        self._token = secrets.randbits(64) or 1
        self._coordinator = Coordinator(store, settings.hub, self._tell) if settings.hub.is_shared else None
        self._workers = Workers(
            settings.workers,
            command,
            listening,
            messages.pack_for_workers(self._start(1, settings)),
            heed=self._handle_message,
            patient=store.identity.try_acquire,
        )
        self._follower = DirectoryFollower(
            settings.state, settings, self._ask_hub, self._workers.add, self._workers.publish, self._record_used_keys
        )
        self._ledger_counts = LedgerCountWriter(store, settings, self._ask_hub)
        self._issuers = IssuerKeyFetcher(settings.state, settings.issuers, self._workers.publish)
        prober = Prober(settings.upstreams)
        self._table_reader = TableReader(store)
        self._upstreams = Upstreams(
            settings.upstreams, self._workers.publish, prober, refused=self._table_reader.refused
        )
        self._certificates = Certificates(settings, self._renew)
        self._changeover = Changeover(settings, self._start, self._workers, self._upstreams, self._certificates, prober)
        read = (
            None
            if config_path is None
            else partial(edge_load.try_load_edge, config_path, os.environ, also=state.log_faults)
        )
        self._reloads = Reloads(settings, read, self._change, heed=self._reloading, signs=watched)
        self._watched = watched is not None
        self._accounting = Accounting(store, self._table_reader, settings.region, settings.usage, self._sync_age)
        self._status = Status(
            self._reloads,
            self._workers,
            self._table_reader,
            self._upstreams,
            self._certificates,
            self._accounting,
            self._follower,
            self._coordinator,
        )
        self._systemd = Systemd()
        self._tasks = Tasks()
        self._stop = asyncio.Event()
        self._log = log.get_logger()

    async def serve(self) -> int:
        """Serve until SIGTERM or SIGINT, drain, and return the exit code."""
        self._heed_signals()
        self._log.info(
            "edge starting",
            config=None if self._config_path is None else str(self._config_path),
            listen=[str(sockets.get_address(one)) for one in self._listening],
            admin=None if self._admin.address is None else str(self._admin.address),
            workers=self._workers.places,
            state=str(self._reloads.serving.state),
        )
        await self._admin.open(self._status, self._table_reader, self._reloads)
        await self._accounting.begin()
        if self._coordinator is not None:
            self._coordinator.begin()
        self._ledger_counts.begin()
        self._tasks.start("heartbeat", self._beat())
        self._tasks.start("tend", self._tend())
        self._tasks.start("reload", self._reloads.run())
        if self._watched:
            self._tasks.start("watch", watch_files(self._reloads))
        self._tasks.start("vitals", self._status.vitals.watch())
        if self._systemd.watchdog is not None:
            self._tasks.start("watchdog", self._notify_watchdog(self._systemd.watchdog))
        try:
            return await self._until_stopped()
        finally:
            await self._leave()

    async def _begin(self) -> None:
        await self._follower.begin()
        await self._issuers.begin()
        await self._until_room()
        await self._changeover.begin()
        self._tasks.start("certificates", self._certificates.watch())

    async def _until_room(self) -> None:
        """Wait until there is a free column for each worker, where the lacking ones will become free.

        They do where no other supervisor lives: then workers that lost theirs hold them. Those above the permitted
        number leave within the time of a drain.
        """
        places, status = self._workers.places, self._status
        while (free := await self._table_reader.alone(self._store.free_columns)) < places:
            if not self._store.identity.try_acquire():
                break
            if not status.lacking:
                self._log.warning(
                    "waiting until workers of supervisors that were killed have left", lacking=places - free
                )
            status.lacking = places - free
            await asyncio.sleep(COLUMN_CHECK_SECONDS)
        status.lacking = 0

    async def _change(self, settings: Settings) -> Sequence[str]:
        whys = await self._changeover(settings)
        if not whys:
            self._accounting.follow(settings.usage)
            if self._coordinator is not None:
                await self._coordinator.follow(settings.hub)
            await self._follower.follow(settings)
            await self._ledger_counts.follow(settings)
            await self._issuers.follow(settings.issuers)
        return whys

    def _tell(self, message: FromLeader) -> None:
        self._workers.tell(message)

    def _handle_message(self, message: LimitsUsed | LookUpKeys | FetchIssuerKeys, reply: Reply) -> None:
        """Handle a worker's message that is not about the worker itself."""
        if isinstance(message, LookUpKeys):
            self._follower.asked(message, reply)
        elif isinstance(message, FetchIssuerKeys):
            self._issuers.hurry(message.issuer)
        elif self._coordinator is not None:
            self._coordinator.uses(message)

    def _record_used_keys(self, digests: Collection[bytes]) -> None:
        """Record that these keys of the directory are in use, for the collector."""
        self._accounting.keys_used.record(digests, time.time())

    def _sync_age(self) -> float | None:
        return None if self._coordinator is None else self._coordinator.behind()

    async def _ask_hub(self, *command: Argument) -> Any:
        if self._coordinator is None:
            raise HubUnavailableError("there is no hub until the edge is started anew")
        return await self._coordinator.ask(*command)

    def _renew(self) -> None:
        self._changeover.renew()
        self._accounting.renew()

    def _reloading(self, under_way: bool) -> None:
        """Notify the service manager of a reload. It knows by itself that an edge that starts or drains does not serve."""
        if self._status.phase == "serving":
            if under_way:
                self._systemd.reloading()
            else:
                self._systemd.ready(self._describe_status())

    def _start(self, number: int, settings: Settings) -> Start:
        """Build the message that a worker starts with."""
        tables = settings.tables.dir
        return Start(
            number,
            settings=edge_load.dump_settings(settings),
            state=str(settings.state),
            tables_dir=None if tables is None else str(tables),
            token=self._token,
            orphan_deadline=ORPHAN_SECONDS if self._config_path else 0.0,
        )

    async def _until_stopped(self) -> int:
        stop = self._tasks.start("stop", self._stop.wait())
        begun = self._tasks.start("begin", self._begin())
        await asyncio.wait([begun, stop], return_when=asyncio.FIRST_COMPLETED)
        if begun.done():
            begun.result()
        await asyncio.wait([self._workers.first_ready, stop], return_when=asyncio.FIRST_COMPLETED)
        if self._workers.first_ready.done():
            try:
                self._workers.first_ready.result()
            except WorkersFailedError as error:
                print_error(f"no worker could start: {error}")
                return 1
            self._status.phase = "serving"
            self._store.control.serve(self._token, monotonic())
            self._admin.serve()
            self._systemd.ready(self._describe_status())
            self._log.info("edge serving", workers=self._workers.ready)
        await stop
        return 0

    async def _leave(self) -> None:
        self._status.phase = "draining"
        self._reloads.end()
        seconds = self._reloads.serving.drain
        self._systemd.stopping(self._describe_status())
        self._log.info("edge draining", seconds=seconds)
        if self._other_serves():
            await self._admin.step_back()
        self._hand_back()
        # Before the workers close theirs: the last one to close resets what is queued, and only they accept.
        sockets.refuse_handshakes(self._listening)
        sockets.close_all(self._listening)
        await self._workers.drain(seconds)
        await self._accounting.end()
        await self._follower.end()
        await self._ledger_counts.end()
        await self._issuers.end()
        if self._coordinator is not None:
            await self._coordinator.end()
        await self._tasks.cancel()
        await self._upstreams.end()
        await self._admin.close()
        self._log.info("edge stopped")

    def _hand_back(self) -> None:
        """Let an earlier supervisor serve again at once.

        Should it be killed while this one still seems to serve, its workers would leave, and no worker would be left.
        """
        control = self._store.control
        if control.serving(monotonic())[0] == self._token and not self._store.identity.try_acquire():
            control.serve(NO_SUPERVISOR, monotonic())

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        # Without a file there is nothing to reload, and this is what a terminal says when it is closed.
        loop.add_signal_handler(signal.SIGHUP, self._reloads.ask if self._config_path else self._stop.set)
        # Whoever loaded the configuration may have held it back until somebody heeds it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    async def _beat(self) -> None:
        """Record a heartbeat every second, unless a newer supervisor serves."""
        while True:
            self._systemd.status(self._describe_status())
            if self._status.phase == "serving" and not self._other_serves():
                self._admin.take_socket()
                self._store.control.serve(self._token, monotonic())
            await asyncio.sleep(TICK_SECONDS)

    async def _notify_watchdog(self, every: float) -> None:
        """Notify the service manager's watchdog for ever."""
        while True:
            self._systemd.alive()
            await asyncio.sleep(every)

    def _describe_status(self) -> str:
        """Describe the phase and the workers in a line."""
        return f"{self._status.phase}: {self._workers.ready} of {self._workers.places} workers ready"

    async def _tend(self) -> None:
        """Maintain the tables every second, if no other supervisor does."""
        tends = False
        logged = ""
        while True:
            try:
                tended = await self._table_reader.tend()
            except OSError as error:
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
        return other_serves(self._token, *self._store.control.serving(monotonic()))


STORE_ORDER_MACHINES = ("x86_64", "AMD64")
"""Machines on which the tables are known to be right: a word that is stored later is never seen earlier."""


def run(
    settings: Settings,
    config_path: Path | None,
    *,
    command: Sequence[str] = WORKER_COMMAND,
    watched: Mapping[str, FileSignature] | None = None,
) -> int:
    """Run the supervisor until it is told to stop, and return the exit code of the process.

    The code is 0 after a drain; 1 where no worker could start; 2, with nothing started, where an address or the state
    directory cannot be used. `config_path` is the file of the settings, None where there is none; `command` starts a
    worker. `watched` are the files that were read; they are loaded again when they change.
    """
    log.configure("supervisor")
    if platform.machine() not in STORE_ORDER_MACHINES:
        print_error(f"this machine is {platform.machine()}; the tables rely on the order in which x86-64 stores words")
        return 2
    raise_descriptor_limit()
    with ExitStack() as owned:
        try:
            taken = [address for address in list_addresses(settings) if sockets.is_listened_on(address)]
            listening = sockets.bind_all(listener.address for listener in settings.listen)
            owned.callback(sockets.close_all, listening)
            admin = Admin(settings)
            store = state.prepare_store(settings)
            owned.callback(store.close)
            state.refuse_log(settings)
            if taken and not state.is_in_use(store):
                # SO_REUSEPORT let it be bound, but clients would be shared with counts that are not.
                why = f"another process does, which is no edge on the state directory {settings.state}"
                raise sockets.AddressUnavailableError(f"cannot listen on {taken[0]}: {why}")
        except (sockets.AddressUnavailableError, state.StateDirectoryError) as error:
            print_error(str(error))
            return 2
        code = uvloop.run(_serve(settings, store, listening, admin, config_path, command, watched))
        # A second signal while the process ends must not change how it ends.
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        return code


async def _serve(
    settings: Settings,
    store: Store,
    listening: Sequence[socket.socket],
    admin: Admin,
    config_path: Path | None,
    command: Sequence[str],
    watched: Mapping[str, FileSignature] | None,
) -> int:
    # A coroutine of its own: what a supervisor is made of wants a running loop.
    return await Supervisor(settings, store, listening, admin, config_path, command, watched).serve()


def list_addresses(settings: Settings) -> tuple[Address, ...]:
    """List the addresses that a configuration listens on."""
    listening = tuple(listener.address for listener in settings.listen)
    address = settings.admin.address
    return listening if address is None else (*listening, address)


def print_error(why: str) -> None:
    """Print to standard error why the edge does not run."""
    print(f"edgeproxy: {why}", file=sys.stderr)
