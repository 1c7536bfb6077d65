"""The files of a state directory: created by a supervisor, joined by its workers, maintained by one supervisor at a
time.

    control            which supervisor serves, the clock, and the current file of each table (control.py)
    TABLE.N.tbl        a table; another layout, or for limits of rates another boot, is another N (file.py)
    base.json          totals of tally files that are gone (base.py)
    setup.lock         held while tables are created (by one) or joined (by many)
    identity.lock      held by the supervisor that maintains the tables

Two supervisors may share a directory, each with workers and columns of its own.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from edgeproxy.base import clock
from edgeproxy.edge.counters import claims, columns
from edgeproxy.edge.counters.base import Sums, add_sums, read_stamp
from edgeproxy.edge.counters.control import Control, boot_digest
from edgeproxy.edge.counters.file import TableError, TableFile
from edgeproxy.edge.counters.locks import FileLock
from edgeproxy.edge.counters.maintenance import MaintenanceResult, TableMaintenance
from edgeproxy.edge.counters.meters import HISTOGRAM_WORDS, Metrics, UsageMeters
from edgeproxy.edge.counters.occupancy import Occupancy
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import (
    LIMITS,
    OCCUPANCY,
    TALLIES,
    file_name,
    layouts,
    prepare_control,
    prepare_tables,
    recover,
)
from edgeproxy.edge.counters.table_files import TableFiles
from edgeproxy.edge.counters.tallies import FLOCK_WAIT_SECONDS, HISTOGRAM, START_WAIT_SECONDS, TallyTable, names
from edgeproxy.edge.counters.usage_key import UsageTotal, parse_usage_key

__all__ = ["MaintenanceResult", "Store"]

SEEN_BY_ALL_SECONDS = 2.0
"""Seconds that a worker on a column new to the others waits for them to read it."""


class Store(TableFiles):
    """The tables from the view of one process. Needs no event loop; only `prepare` and `join` may wait.

    `limits` and `tallies` are the current tables by name. In a supervisor they change once another supervisor has
    created others; a worker keeps the tables that it joined. `column` is None in a supervisor.
    """

    meters: Metrics
    """The metrics of this worker; a supervisor has none."""
    billing: UsageMeters
    """The usage counters of this worker; a supervisor has none."""
    connected: Occupancy
    """The number of connections of each address; a supervisor has none."""
    _connections: TableFile
    """The file of `connected`: one for all workers that choose from one set of columns."""

    def __init__(self, state: Path, tables_dir: Path | None, control: Control) -> None:
        super().__init__(state, tables_dir, control)
        self.column: int | None = None
        self.tallies: dict[str, TallyTable] = {}
        self.identity = FileLock(state / "identity.lock")
        self._tending = TableMaintenance(self)

    # ---- the two ways in

    @classmethod
    def prepare(
        cls,
        state: Path,
        *,
        workers: int,
        customers: int = 200_000,
        addresses: int = 200_000,
        end_users: int = 20_000,
        tables_dir: Path | None = None,
        boot: str | None = None,
        offset: float | None = None,
        hub: bool = False,
        ledger: bool = False,
    ) -> "Store":
        """Create missing files, and a new generation of tables with another layout or boot; open all, for a supervisor.

        `customers`, `addresses` and `end_users` are rows. `hub`: limits are shared with other hosts; `ledger`: the
        collector sends other hosts' counts of quotas. `boot` and `offset` (seconds): by default the kernel's. Raises
        TableError (an OSError) if a file cannot be created, or is not valid: its text is for the operator, and nothing
        half-made is left.
        """
        folder = tables_dir or state
        setup = FileLock(state / "setup.lock")
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            setup.acquire()
        except OSError as error:
            raise TableError(state, f"cannot be used: {error.strerror}", error.errno) from error
        try:
            control = prepare_control(state / "control", folder)
            digest = boot_digest(clock.boot_id() if boot is None else boot)
            if control.boot != digest:
                recover(folder, control)
                # A wall clock before 2025 would give cells below zero: edge time then begins with the boot.
                control.begin_boot(digest, max(0.0, clock.wall_offset() if offset is None else offset))
            store = cls(state, tables_dir, control)
            expected = layouts(workers, customers, addresses, end_users, hub=hub, ledger=ledger)
            prepare_tables(folder, control, expected, store.load_base(), monotonic() + control.offset)
            store.follow()
        finally:
            setup.release()
        return store

    @classmethod
    def join(cls, state: Path, *, tables_dir: Path | None = None) -> "Store":
        """Open the current tables and acquire a column, for a worker's life. May wait for 2 s.

        Raises NoFreeColumnError if all are held, TableError if nothing was prepared.
        """
        store = cls(state, tables_dir, Control.open(state / "control"))
        setup = FileLock(state / "setup.lock")
        try:
            setup.acquire(shared=True)
            files = {kind: store.current(kind) for kind in (*LIMITS, *TALLIES, OCCUPANCY)}
            store.column = column = columns.reserve_column(tuple(files.values()))
        except BaseException:
            store.close()
            raise
        finally:
            setup.release()
        store.limits = {kind: LimitTable(files[kind], column) for kind in LIMITS}
        store.tallies = {kind: TallyTable(files[kind], column) for kind in TALLIES}
        store.metrics.clear_gauges()
        store.meters = Metrics(store.metrics)
        store.billing = UsageMeters(store.usage)
        store.connected = Occupancy(TallyTable(files[OCCUPANCY], column))
        store._connections = files[OCCUPANCY]
        for table in store.limits.values():
            claims.clear_column(table, column)
        # Until now, others would have taken the predecessor's words for this process's.
        columns.begin_counting(tuple(files.values()), column)
        store.publish_column()
        return store

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within the context, claims of rows for totals wait START_WAIT_SECONDS, since no request waits for them."""
        for table in self.tallies.values():
            table.patience = START_WAIT_SECONDS
        try:
            yield
        finally:
            for table in self.tallies.values():
                table.patience = FLOCK_WAIT_SECONDS

    def publish_column(self) -> None:
        """Make every running worker read this one's column, before anything is counted in it."""
        deadline = monotonic() + SEEN_BY_ALL_SECONDS
        versions: list[tuple[LimitTable, int]] = []
        for table in self.limits.values():
            while not table.file.lock():
                if monotonic() >= deadline:
                    raise TableError(table.file.path, "is kept locked by a process that hangs")
                sleep(0.001)
            try:
                table.declare_column()
                table.refresh_columns()
                # Also if a predecessor declared the column: it may have been killed before all had seen that.
                versions.append((table, table.version))
            finally:
                table.file.unlock()
        while monotonic() < deadline and not all(
            table.seen_by(columns.list_held_columns(table.file), version) for table, version in versions
        ):
            # Others may be entering too, and wait for this one in any table.
            for table in self.limits.values():
                table.refresh_columns()
            sleep(0.005)

    def close(self) -> None:
        """Release the column, the identity lock and the maps.

        Objects that counted in them cannot be used after that.
        """
        self.identity.release()
        super().close()

    # ---- for both

    @property
    def customers(self) -> LimitTable:
        """Limits of customers and keys."""
        return self.limits["customers"]

    @property
    def addresses(self) -> LimitTable:
        """Limits by address, and of anonymous requests."""
        return self.limits["addresses"]

    @property
    def end_users(self) -> LimitTable:
        """Limits of the users of customers. Anybody can invent such users."""
        return self.limits["end_users"]

    @property
    def quotas(self) -> LimitTable:
        """Counts of quotas in their calendar periods; they outlive reboots."""
        return self.limits["quotas"]

    @property
    def usage(self) -> TallyTable:
        """Usage for billing."""
        return self.tallies["usage"]

    @property
    def metrics(self) -> TallyTable:
        """Metrics for Prometheus."""
        return self.tallies["metrics"]

    @property
    def offset(self) -> float:
        """Edge time minus monotonic time, in seconds. Read it again at every sweep."""
        return self.control.offset

    # ---- for workers

    def refresh_columns(self) -> bool:
        """Return whether other workers came or went; call it twice a second. Costs a microsecond.

        Policies need nothing further: the policies of this process read again at their next decision.
        """
        self.metrics.forget_living()
        self.connected.forget_living()
        changed = [table.refresh_columns() for table in self.limits.values()]
        return any(changed)

    def recover_clock(self) -> None:
        """Make all limits continue at the present edge time, as the clock was set back."""
        now = monotonic() + self.offset
        for table in self.limits.values():
            table.recover_clock(now)

    def declare_orphan(self, token: int, *, last: bool) -> bool:
        """Declare that this worker serves without its supervisor, which had this token; return whether it should, as
        others may be enough.

        As many go on as a supervisor has workers, so that the next one's find columns: all workers of the `last`
        supervisor that served, and of others the workers in the lowest columns.
        """
        file, own = self._connections, self.column
        assert own is not None
        columns.declare_orphan(file, own, token, last=last)
        before = [theirs or column < own for column, theirs in columns.list_orphans(file).items()]
        return last or sum(before) < file.layout.columns // 2

    def withdraw_orphan(self, token: int) -> bool:
        """Withdraw that declaration: this worker accepts no further connection.

        Return whether others of its supervisor stay declared: they have its sockets.
        """
        assert self.column is not None
        columns.withdraw_orphan(self._connections, self.column, token)
        return columns.has_orphans(self._connections, token)

    # ---- for supervisors

    def free_columns(self) -> int:
        """Return how many further workers would find a free column."""
        return columns.count_free_columns([self.current(kind) for kind in (*LIMITS, *TALLIES, OCCUPANCY)])

    def maintain(self, now: float) -> MaintenanceResult:
        """Run one slice of maintenance (about 20 ms at most) if this process holds the identity lock; call it every
        second.

        Acquires the identity lock if it is free. `now` is edge time. Raises TableError if the disk is full: nothing is
        lost, and the next call tries again.
        """
        if not self.identity.try_acquire():
            return MaintenanceResult(holder=False)
        self.follow()
        return self._tending.slice(now)

    def usage_totals(self) -> Iterator[UsageTotal]:
        """Yield the usage totals since the state was created: of the durable base and every live file."""
        for key, (_, words) in self.sums("usage").items():
            customer, meter, route, split = parse_usage_key(key)
            total = customer, meter, route, words[0]
            yield (*total, split) if split else total

    def metric_totals(self) -> Iterator[tuple[str, tuple[str, ...], list[int]]]:
        """Yield (name, label values, words) of metrics: [total], or of a histogram a count per bucket and the sum in
        nanoseconds.

        Bucket counts are each bucket's own, not cumulative: len(LATENCY_BUCKETS) + 1 of them. Gauges are summed over
        the columns of running workers only.
        """
        for key, (kind, words) in self.sums("metrics").items():
            name, *labels = names(key)
            yield name, tuple(labels), words[: HISTOGRAM_WORDS if kind == HISTOGRAM else 1]

    def sums(self, kind: str) -> Sums:
        """Return the sums of a tally table by key, over the base and all files. Takes about 3 µs a row and file."""
        while True:
            base = self.load_base()
            read = read_stamp(self.base_path)
            sums: Sums = dict(base.tables.get(kind, {}))
            for number in self.list_generations(kind):
                name = file_name(kind, number)
                if name not in base.folded:
                    self.add_file(sums, name, kind)
            # Another supervisor may have folded a file meanwhile: then it was read twice, or not at all.
            if read_stamp(self.base_path) == read:
                return sums

    def add_file(self, sums: Sums, name: str, kind: str) -> None:
        """Add the rows of one file, unless it is gone."""
        try:
            file = self.get_file(name, kind)
        except TableError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        for of, key, words in TallyTable(file).totals(columns.list_counting_columns(file)):
            add_sums(sums, of, key, words)

    def follow(self) -> None:
        """Open the current tables, if others have become current."""
        for kind in LIMITS:
            if kind not in self.limits or self.limits[kind].file is not self.current(kind):
                self.limits[kind] = LimitTable(self.current(kind))
        for kind in TALLIES:
            if kind not in self.tallies or self.tallies[kind].file is not self.current(kind):
                self.tallies[kind] = TallyTable(self.current(kind))
