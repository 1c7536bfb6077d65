"""Maintenance of the tables, in slices, by the supervisor that holds the identity lock: it reclaims rows, retires files
that are no longer current, repairs tables after a killed process, and releases columns whose workers are gone.
"""

from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.base import Fold
from edgeproxy.edge.counters.carry import Carry
from edgeproxy.edge.counters.file import QUOTAS, sync_folder
from edgeproxy.edge.counters.layout import DAMAGED, PENDING
from edgeproxy.edge.counters.reclaim import Reclaim
from edgeproxy.edge.counters.row_repair import repair_if_free
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import LIMITS, OCCUPANCY, TALLIES, boot_of, file_name
from edgeproxy.edge.counters.table_files import TableFiles
from edgeproxy.edge.counters.tallies import TallyTable

RECLAIM_SECONDS, HURRIED_RECLAIM_SECONDS = 0.003, 0.006
"""Seconds of a slice for each table of limits: usually, and when more than half of its rows are in use."""
RETIRE_SECONDS = 0.004
"""Seconds of a slice for each file that is no longer current."""
UNHELD_SECONDS = 60.0
"""After this many seconds a column without a holder is no longer read at every decision. A replacement is quicker."""


class MaintenanceResult(NamedTuple):
    """The results of one slice. `holder`: this process holds the identity lock, else it did nothing.

    The rows closed, freed and revived by reclaim, and carried to a newer file; names of the files folded into the
    durable base, and of the removed files.
    """

    holder: bool
    closed: int = 0
    reclaimed: int = 0
    revived: int = 0
    carried: int = 0
    folded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class TableMaintenance:
    """The state of maintenance between two slices."""

    def __init__(self, files: TableFiles) -> None:
        self.files = files
        self._reclaims: dict[str, Reclaim] = {}
        self._carries: dict[str, tuple[Carry, bool]] = {}
        self._folds: dict[str, Fold] = {}
        self._unheld: dict[str, dict[int, float]] = {}

    def slice(self, now: float) -> MaintenanceResult:
        """Run one slice. `now` is edge time.

        Raises TableError if the base cannot be written, for example on a full disk: nothing is lost, and the next slice
        tries again.
        """
        closed = reclaimed = revived = carried = 0
        folded: list[str] = []
        removed: list[str] = []
        for kind in LIMITS:
            table = self.files.limits[kind]
            self.repair(table)
            table.grow_in_time()
            self.release_columns(table, now)
            did = self.reclaim(table, now)
            closed, reclaimed, revived = closed + did[0], reclaimed + did[1], revived + did[2]
            carried += self.retire_limits(kind, now, removed)
        for kind in TALLIES:
            self.retire_tallies(kind, folded, removed)
        self.retire_occupancy(removed)
        if removed:
            sync_folder(self.files.folder)
        return MaintenanceResult(True, closed, reclaimed, revived, carried, tuple(folded), tuple(removed))

    def repair(self, table: LimitTable) -> None:
        """Repair the table if a process was killed while it claimed or freed a row."""
        if table.words[DAMAGED] or table.words[PENDING]:
            repair_if_free(table)

    def release_columns(self, table: LimitTable, now: float) -> None:
        """From now on, read columns without a worker for a minute once a cell, no longer at every decision."""
        held = columns.list_held_columns(table.file)
        unheld = self._unheld.setdefault(table.file.path.name, {})
        for column in range(table.layout.columns):
            if column in held or column == table.layout.hub:
                unheld.pop(column, None)
            else:
                unheld.setdefault(column, now)
        gone = {column for column, since in unheld.items() if now - since >= UNHELD_SECONDS}
        if gone & table.active_columns() and table.file.lock():
            try:
                table.limit_active_columns(
                    frozenset(range(table.layout.columns)) - gone | columns.list_held_columns(table.file)
                )
            finally:
                table.file.unlock()

    def reclaim(self, table: LimitTable, now: float) -> tuple[int, int, int]:
        """Go on with the round through a table."""
        reclaim = self._reclaims.get(table.name)
        if reclaim is None or reclaim.table is not table:
            self._reclaims[table.name] = reclaim = Reclaim(table)
        seconds = HURRIED_RECLAIM_SECONDS if table.rows_in_use * 2 > table.layout.rows else RECLAIM_SECONDS
        return reclaim.slice(now, perf_counter() + seconds)

    def retire_limits(self, kind: str, now: float, removed: list[str]) -> int:
        """Carry the counts of old files into their successors; remove the oldest once no worker counts in it.

        The last round of a file is one that began after its last worker, and every older file, had gone.
        """
        numbers = self.files.list_generations(kind)
        carried = 0
        oldest = True
        for number, next_number in pairwise(numbers):
            name = file_name(kind, number)
            old, new = (
                self.files.get_file(name, kind),
                self.files.get_file(file_name(kind, next_number), kind),
            )
            alone = oldest and not columns.list_held_columns(old)
            if old.boot != boot_of(kind, self.files.control) or old.layout.cells != new.layout.cells:
                # Cells of another clock, or of another width, mean nothing to the successor.
                ended = last = alone
            else:
                carry, last = self._carries.get(name) or (Carry(LimitTable(old), LimitTable(new)), alone)
                did, ended = carry.slice(now, perf_counter() + RETIRE_SECONDS)
                carried += did
                self._carries[name] = (carry, alone if ended else last)
            oldest = ended and last
            if oldest:
                self._carries.pop(name, None)
                if kind == QUOTAS:
                    # They must outlive even a power cut, so the only copy must not be in memory.
                    new.flush()
                self.remove(name, removed)
        return carried

    def retire_tallies(self, kind: str, folded: list[str], removed: list[str]) -> None:
        """Fold old files that no worker holds into the durable base, and remove them."""
        for number in self.files.list_generations(kind)[:-1]:
            name = file_name(kind, number)
            if name in self.files.load_base().folded:
                # Folded, and interrupted before it was removed.
                self.remove(name, removed)
                continue
            file = self.files.get_file(name, kind)
            if columns.list_held_columns(file) or not self.files.may_fold(name, kind):
                continue
            fold = self._folds.setdefault(name, Fold(TallyTable(file)))
            if fold.slice(perf_counter() + RETIRE_SECONDS):
                present = frozenset(path.name for path in self.files.folder.glob("*.tbl"))
                base = self.files.load_base().fold(name, kind, fold.sums, present=present, marks=fold.marks)
                base.write(self.files.base_path)
                del self._folds[name]
                folded.append(name)
                self.remove(name, removed)

    def retire_occupancy(self, removed: list[str]) -> None:
        """Remove old files of open connections that no worker holds."""
        for number in self.files.list_generations(OCCUPANCY)[:-1]:
            name = file_name(OCCUPANCY, number)
            if not columns.list_held_columns(self.files.get_file(name, OCCUPANCY)):
                self.remove(name, removed)

    def remove(self, name: str, removed: list[str]) -> None:
        """Unlink a file that counts no more."""
        (self.files.folder / name).unlink(missing_ok=True)
        self.files.close_file(name)
        removed.append(name)
