"""Sealing: the counts of the tables of usage go into batches, each increase into exactly one.

Every few seconds, and at each minute, `seal` looks for rows whose total exceeds their mark. It appends the increases to
the spool, together with the rows and their totals. Once the disk has the batch, it writes the totals as marks into the
map. A kill before that moment seals nothing: the next seal finds these increases and the counts since. After a later
kill, the last record has the marks to write, and `recover` writes them. If nothing has grown for a while, a batch
without rows is sealed, which shows the collector that the edge lives.

After a power cut the tables may be older than the last batches, because only the spool is waited for. The counts in the
batches of the last segment are then restored (`_restore`): sealed counts may have been shipped, and totals never fall.
Counts that were not sealed yet may be lost.

A row belongs to one chain of batches, by the name of its customer (counters/usage_key.py): the edge's own, or another
residency's. Each chain has a sealer, with a spool and an identity of its own (chains.py).

Only the holder of the identity lock seals, one call at a time. During `find_growth`, `write_marks` and `recover`
nothing else may read or maintain the tables (edge/supervisor/table_reader.py); `append_batch` waits for the disk and
changes no table.
"""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.columns import NoFreeColumnError
from edgeproxy.edge.counters.file import TableError, TableFile
from edgeproxy.edge.counters.index import RowUnavailableError
from edgeproxy.edge.counters.locks import FileLock
from edgeproxy.edge.counters.setup import file_name, list_generations
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.table_files import IDENTITY_FILE
from edgeproxy.edge.counters.tallies import COUNTER, TallyTable
from edgeproxy.edge.counters.usage_key import qualify_customer, usage_key
from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.identity import SPOOL, EdgeIdentity, LastSealed
from edgeproxy.edge.usage.segment import BASE, Disk, Mark
from edgeproxy.edge.usage.spool import BrokenSpoolError, Spool
from edgeproxy.edge.usage.table_reading import USAGE, Increase, TableReading, open_files, read_tables
from edgeproxy.wire.batch import (
    FIRST,
    MINUTE_SECONDS,
    ROWS_MAX,
    Batch,
    Row,
    count_key,
    format_batch,
    is_long,
    parse_batch,
)

SEAL_SECONDS = 5.0
EMPTY_BATCH_SECONDS = 60
"""Seconds from a batch until the next one is sealed even without rows."""
CLOCK_BEHIND_SECONDS = 60
"""If the clock is behind the last batch by more than these seconds, a fault is reported."""


class BatchPart(NamedTuple):
    """The content of one batch."""

    rows: tuple[Row, ...]
    keys: tuple[bytes, ...]
    marks: tuple[Mark, ...]


class Growth(NamedTuple):
    """The counts found at a moment: `until` in Unix seconds.

    `closed`: files that are complete, because no process counts in them.
    """

    until: int
    parts: tuple[BatchPart, ...]
    closed: frozenset[str]
    faults: tuple[str, ...]


class SealResult(NamedTuple):
    """The outcome of one call: batches, their rows, and faults without loss, for log and alert."""

    batches: int
    rows: int
    faults: tuple[str, ...]


def seconds_until_seal(now: float, every: float = SEAL_SECONDS) -> float:
    """Return the seconds from `now` (Unix time) until the next look: after `every`, or at the minute if that comes
    first.

    A little after the minute: seconds are whole in a batch, so a moment too early would be a second too early.
    """
    return min(every, MINUTE_SECONDS - now % MINUTE_SECONDS + 0.001)


def find_last_sealed(files: Iterable[TableFile]) -> int:
    """Find the last batch whose marks are in these tables."""
    return max((file.last_sealed for file in files), default=0)


class Sealer:
    """Seals the usage of one chain. `aside`: the place of a broken spool that it set aside."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        mine: EdgeIdentity,
        region: str,
        aside: Path | None = None,
        residency: str = "",
    ) -> None:
        """`residency`: the residency whose usage is sealed; empty: the edge's own, including usage without a
        customer.
        """
        self.store = store
        self.spool = spool
        self.identity = mine
        self.region = region
        self.aside = aside
        self.residency = residency
        self.until = mine.made_at
        self._adopts = spool.last is None
        self._unmarked: tuple[BatchPart, Batch] | None = None
        """A batch that the disk has, and whose marks are still to be written."""

    @classmethod
    def open(cls, store: Store, region: str, now: float, *, disk: Disk | None = None, residency: str = "") -> "Sealer":
        """Create the sealer of the holder of the identity lock, and repair the state after a crash. `now` is Unix time.

        To be called before workers are started, and after `identity.set_aside_if_moved`. A spool with an unreadable end
        is set aside, and the edge continues with its counts under a new identity. Raises OSError,
        identity.IdentityError, or spool.BrokenSpoolError if there is a spool without its identity.
        """
        if not store.identity.held:
            raise ValueError("only who holds the identity lock seals")
        folder = identity.get_chain_folder(store.state, residency)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = identity.load_identity(folder)
        sealed = 0 if mine is None else _fetch_last_sealed(store, residency)
        aside = None
        try:
            spool = Spool.open(folder / SPOOL, sealed=sealed, disk=disk)
        except BrokenSpoolError:
            if mine is None:
                raise
            aside = identity.set_aside_state(folder, store.folder, only=(SPOOL,))
            mine = None
            spool = Spool.open(folder / SPOOL, disk=disk)
        try:
            if mine is None:
                if spool.last is not None:
                    raise BrokenSpoolError(
                        f"{spool.folder} holds batches, and {folder / IDENTITY_FILE} is missing: put it back"
                    )
                # The recorded batch belongs to another identity.
                _record_last_sealed(store, residency, 0)
                mine = identity.create_identity(folder, now)
            sealer = cls(store, spool, mine, region, aside, residency)
            sealer.recover()
        except BaseException:
            spool.close()  # On a full disk this is tried again every second.
            raise
        return sealer

    def recover(self) -> None:
        """Write the marks of the last batches, which a crash or a power cut may have kept from being written."""
        base = self.store.load_base()
        latest: dict[tuple[int, int, bytes], int] = {}
        for record in self.spool.recent:
            rows = parse_batch(record.body).rows
            for file, number, of, total in record.marks:
                customer, meter, route, split = count_key(rows[of])
                counted_as = qualify_customer(customer, self.residency)
                # Totals never fall, so the last record of a row has its highest one.
                latest[file, number, usage_key((counted_as, meter, route, split))] = total
        files = open_files(self.store)
        lost: list[tuple[int, int, bytes, int]] = []
        for (file, number, key), total in latest.items():
            if file == BASE:
                continue
            if file in files and not self._mark_row(TallyTable(files[file]), number, key, total):
                lost.append((file, number, key, total))
        if lost:
            self._restore(files, lost)
        marked = base.mark({key: total for (file, _, key), total in latest.items() if file == BASE})
        if marked is not base:
            marked.write(self.store.base_path)
        last = self.spool.last
        looked = [file.looked_until for file in files.values()]
        self.until = max([self.identity.made_at, *looked, 0 if last is None else last.until])
        self.spool.recent = ()
        self._write_progress(self.until)

    def _mark_row(self, table: TallyTable, number: int, key: bytes, total: int) -> bool:
        """Mark a row. Return False if the table has a lower total, as after a power cut."""
        row = table.number(key, number)
        if row is None or table.total(row) < total:
            return False
        table.mark(row, total)
        return True

    def _restore(self, files: dict[int, TableFile], lost: list[tuple[int, int, bytes, int]]) -> None:
        """Restore sealed counts that the tables have lost in a power cut."""
        setup = FileLock(self.store.state / "setup.lock")
        setup.acquire()
        try:
            for number, file in files.items():
                if lost_rows := [(row, key, total) for of, row, key, total in lost if of == number]:
                    column = columns.acquire_column((file,))
                    try:
                        table = TallyTable(file, column)
                        for likely, key, total in lost_rows:
                            row = table.number(key, likely)
                            if row is None:
                                table.own(key, COUNTER)
                                row = table.number(key)
                                assert row is not None
                            table.restore_total(row, total)
                            table.mark(row, total)
                    finally:
                        columns.release_column((file,), column)
        except (NoFreeColumnError, RowUnavailableError) as error:
            raise TableError(self.store.folder, f"lack what was sealed, and it cannot be put back: {error}") from error
        finally:
            setup.release()

    def seal(self, now: float | None = None) -> SealResult:
        """Seal the growth. `now` is Unix time. Raises OSError: counts that were not sealed are sealed another time."""
        growth = self.find_growth(time.time() if now is None else now)
        rows = 0
        for part in growth.parts:
            self.write_marks(part, self.append_batch(part, growth.until))
            rows += len(part.rows)
        self.record_sealed(growth)
        return SealResult(len(growth.parts), rows, growth.faults)

    def find_growth(self, now: float) -> Growth:
        """Find the growth since the last seal. The caller appends it, marks it, and then calls `record_sealed`.

        If the last batch could not be marked, as on a full disk, that is done first: it would be sealed twice. Raises
        OSError if it fails.
        """
        self.finish_marks()
        return self.select_growth(read_tables(self.store), now, now)

    def finish_marks(self) -> None:
        """Write the marks of the last batch if that failed before. Raises OSError."""
        if not self.store.identity.held:
            raise ValueError("only who holds the identity lock seals")
        if self._unmarked is not None:
            self.write_marks(*self._unmarked)

    @property
    def latest(self) -> int:
        """The end of the last batch's time, or of the last look, in Unix seconds: the next batch ends no earlier."""
        last = self.spool.last
        return max(self.until, 0 if last is None else last.until)

    def select_growth(self, reading: TableReading, now: float, until: float) -> Growth:
        """Select the growth for this chain, up to `until`, or later if a batch ended later.

        `now` is the time of the clock.
        """
        # After the clock was set back, batch times stand still until it has caught up.
        latest = self.latest
        until = max(int(until), latest)
        faults = list(reading.faults)
        if latest - now > CLOCK_BEHIND_SECONDS:
            faults.append(f"the clock is {latest - now:.0f} s behind the last batch, whose time is written until then")
        parts = tuple(_split_parts(reading.increases.get(self.residency, [])))
        last = self.spool.last
        if not parts and until - (self.identity.made_at if last is None else last.until) >= EMPTY_BATCH_SECONDS:
            parts = (BatchPart((), (), ()),)
        return Growth(until, parts, reading.closed, tuple(faults))

    def append_batch(self, part: BatchPart, until: int) -> Batch:
        """Write a batch to the disk. Raises OSError."""
        last = self.spool.last
        if self.spool.is_full:
            # After a crash only the last segment is read, so the tables on disk must have everything before it.
            _sync_tables(self.store.folder)
        seq, prev = (1, FIRST) if last is None else (last.seq + 1, last.digest)
        # The first batch has the counts made before there was a spool, at any time.
        long = is_long(self.until, until) or self._adopts
        batch = Batch(self.identity.id, self.region, seq, self.until, until, prev, part.rows, long=long)
        self.spool.append(batch, format_batch(batch), part.marks)
        # From here on these counts are sealed, even if their marks cannot be written.
        self._unmarked = part, batch
        return batch

    def write_marks(self, part: BatchPart, batch: Batch) -> None:
        """Write the marks of a batch that the disk has. Raises OSError if the disk is full for the base's marks."""
        files = open_files(self.store)
        tables = {number: TallyTable(file) for number, file in files.items()}
        based: dict[bytes, int] = {}
        for file, number, of, total in part.marks:
            if file == BASE:
                based[part.keys[of]] = total
            else:
                tables[file].mark(number, total)
        if based:
            self.store.load_base().mark(based).write(self.store.base_path)
        # After the marks: if a kill comes in between, the batch is the last record of the spool, and `recover` writes
        # its marks.
        _record_last_sealed(self.store, self.residency, batch.last)
        self._unmarked = None

    def record_sealed(self, growth: Growth) -> None:
        """Record that all of this growth is sealed, in every chain."""
        self.until = growth.until
        self._adopts = False
        self.store.sealed |= growth.closed
        self._write_progress(growth.until)

    def _write_progress(self, until: int) -> None:
        last = self.spool.last
        if not self.residency:
            for file in open_files(self.store).values():
                file.looked_until = until
        # Another supervisor may have created a file since the last batch.
        _record_last_sealed(self.store, self.residency, 0 if last is None else last.seq)

    def close(self) -> None:
        """Close the spool."""
        self.spool.close()


def _sync_tables(folder: Path) -> None:
    """Wait until the disk has the tables of usage. Opened by name, so that no other code closes them meanwhile."""
    for number in list_generations(folder, USAGE):
        try:
            fd = os.open(folder / file_name(USAGE, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _split_parts(increases: list[Increase]) -> Iterator[BatchPart]:
    """Split increases into batches."""
    for start in range(0, len(increases), ROWS_MAX):
        some = increases[start : start + ROWS_MAX]
        marks = [Mark(file, row, of, total) for of, (_, _, totals) in enumerate(some) for file, row, total in totals]
        yield BatchPart(tuple([row for row, _, _ in some]), tuple([key for _, key, _ in some]), tuple(marks))


def _fetch_last_sealed(store: Store, residency: str) -> int:
    """Return the last batch of a chain that is known to have been sealed."""
    if residency:
        return LastSealed(identity.get_chain_folder(store.state, residency)).fetch()
    return find_last_sealed(open_files(store).values())


def _record_last_sealed(store: Store, residency: str, seq: int) -> None:
    """Record the last batch of a chain that was sealed."""
    if residency:
        LastSealed(identity.get_chain_folder(store.state, residency)).record(seq)
        return
    for file in open_files(store).values():
        file.last_sealed = seq
