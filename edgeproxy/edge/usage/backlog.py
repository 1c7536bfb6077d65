"""The batches to ship: the batches of a spool after a given one, in order, with gaps in place of lost ones.

Lost are batches that were acknowledged and removed since, and unreadable batches that an operator discarded
(`discard`). Other unreadable batches are damage, and nothing after them is shipped. A gap is computed only from its
successor, so it is equal whenever it is made.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeproxy.edge.usage.segment import Damage, Record, parse_records
from edgeproxy.edge.usage.spool import (
    DamagedSpoolError,
    DiscardedRange,
    LocatedDamage,
    Position,
    Spool,
    SpoolEnd,
    count_before,
    fetch_discarded,
    list_segments,
    parse_first_seq,
)
from edgeproxy.wire.batch import FIRST, Batch, Gap, InvalidBatchError, format_batch, parse_batch

READ_AHEAD_BATCHES_MAX = 64
READ_AHEAD_BYTES_MAX = 4 << 20
"""Approximate bytes to read ahead."""
REMOVED = "was acknowledged once, and is not kept any more"


class Parcel(NamedTuple):
    """A batch to ship, its body, and the collector's progress once it has the batch."""

    batch: Batch
    body: bytes
    passed: Position


class Backlog:
    """The batches of `spool` after `seq`, each once. For one thread at a time; another one may append.

    A segment is read once for all its batches; later only its appended part is read.
    """

    def __init__(self, spool: Spool, seq: int) -> None:
        self._spool = spool
        self._next_seq = seq + 1
        self._reading: Iterator[Parcel] | None = None
        self._path: Path | None = None
        self._offset = 0

    def read_parcels(self) -> list[Parcel]:
        """Read the next batches, about READ_AHEAD_BATCHES_MAX or READ_AHEAD_BYTES_MAX; none if all were read.

        Raises DamagedSpoolError if the next one cannot be read, and OSError if the disk does not answer; each time.
        """
        parcels: list[Parcel] = []
        size = 0
        reading = self._reading or self._read()
        self._reading = None
        while len(parcels) < READ_AHEAD_BATCHES_MAX and size < READ_AHEAD_BYTES_MAX:
            try:
                parcel = next(reading)
            except StopIteration:
                return parcels
            except (DamagedSpoolError, OSError):
                if parcels:
                    return parcels
                raise
            parcels.append(parcel)
            size += len(parcel.body)
        self._reading = reading
        return parcels

    def __iter__(self) -> Iterator[Parcel]:
        """Yield all parcels that exist now."""
        while some := self.read_parcels():
            yield from some

    def _read(self) -> Iterator[Parcel]:
        """Read the present batches, from the end of the last reading on. `read_parcels` asks again for later ones."""
        end = self._spool.end
        if end is None or self._next_seq > end.last.seq:
            return
        faults: list[str] = []
        for path in self._list_paths(end):
            for record in parse_records(*self._read_content(path, end), marked=False):
                batch = _parse_record(path, record, faults)
                if batch is None or isinstance(record, Damage):
                    continue
                if batch.seq > self._next_seq:
                    yield from self._list_gaps(path, record, batch, faults)
                faults.clear()
                self._path, self._offset = path, record.offset + record.size
                if batch.seq == self._next_seq:
                    self._next_seq = batch.last + 1
                    yield Parcel(batch, record.body, Position(batch.last, record.counted, batch.until))
        if self._next_seq <= end.last.seq:
            raise DamagedSpoolError(faults[0] if faults else f"{self._spool.folder}: batch {self._next_seq} is missing")

    def _list_paths(self, end: SpoolEnd) -> list[Path]:
        """List the segments from the one with the next batch to the end."""
        paths = [
            path for path in list_segments(self._spool.folder) if parse_first_seq(path) <= parse_first_seq(end.path)
        ]
        if self._path in paths:
            return paths[paths.index(self._path) :]
        self._path, self._offset = None, 0
        behind = [place for place, path in enumerate(paths) if parse_first_seq(path) <= self._next_seq]
        return paths[behind[-1] :] if behind else paths

    def _read_content(self, path: Path, end: SpoolEnd) -> tuple[bytes, int]:
        """Read the rest of a segment, and return it with its offset."""
        start = self._offset if path == self._path else 0
        with path.open("rb") as file:
            # After the end, a record may be being written.
            size = end.size if path == end.path else os.fstat(file.fileno()).st_size
            return os.pread(file.fileno(), max(0, size - start), start), start

    def _list_gaps(self, path: Path, one: Record, batch: Batch, faults: list[str]) -> Iterator[Parcel]:
        """Make the gaps that replace missing batches before `batch`. Raises DamagedSpoolError."""
        folder, counted = self._spool.folder, count_before(batch, one.counted)
        given = (
            DiscardedRange(1, min(self._spool.most, parse_first_seq(list_segments(folder)[0]) - 1), REMOVED),
            *fetch_discarded(folder),
        )
        while self._next_seq < batch.seq:
            why = [(min(last, batch.seq - 1), why) for first, last, why in given if first <= self._next_seq <= last]
            if not why:
                raise DamagedSpoolError(
                    faults[0] if faults else f"{path}:{one.offset}: batch {self._next_seq} is missing"
                )
            gap = Gap(self._next_seq, *why[0])
            # Its predecessor may be lost when the gap is made again, so the gap names none.
            made = Batch(batch.edge, batch.region, self._next_seq, batch.since, batch.since, FIRST, gap=gap)
            self._next_seq = gap.to_seq + 1
            yield Parcel(made, format_batch(made), Position(gap.to_seq, counted, batch.since))


def find_position(spool: Spool, seq: int) -> Position:
    """Find the progress of a collector whose last batch is `seq`. Raises OSError. Reads a segment or more."""
    end = spool.end
    if end is not None and seq >= end.last.seq:
        return Position(seq, end.last.counted, end.last.until)
    try:
        (batch, _, there), *_ = Backlog(spool, seq).read_parcels()
    except (DamagedSpoolError, ValueError):
        return spool.passed._replace(seq=seq)  # Unknown until the next batch can be read.
    return Position(seq, count_before(batch, there.counted), batch.since)


def _parse_record(path: Path, one: Record | Damage, faults: list[str]) -> Batch | None:
    """Parse the batch of a record. If it is not one, return None and add a fault."""
    if isinstance(one, Damage):
        faults.append(str(LocatedDamage(path, one)))
        return None
    try:
        return parse_batch(one.body)
    except InvalidBatchError as error:
        faults.append(f"{path}:{one.offset}: {error}")
        return None
