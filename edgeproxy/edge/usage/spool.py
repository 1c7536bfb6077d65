"""The spool: sealed batches on disk, in order, until long after the collector has them.

    spool/NNNNNNNNNN.seg     records (segment.py); the number is the number of its first batch
    spool/watermark.json     {seq, counted, until}, see Position, and `most`, the last batch that was ever acknowledged
    spool/discarded.json     [[from, to, why], …]: unreadable batches that an operator discarded

Only the holder of the identity lock appends. A new segment is begun only when the disk has the tables with all marks of
the earlier ones. So after a crash, even after a power cut, only the last segment must be read.

One thread appends while another one ships (backlog.py, ship.py). Each changes only its own data. The other one reads it
as a single value, which is set once all of it is true.
"""

import os
import re
import threading
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import orjson

from edgeproxy.edge.counters.file import sync_folder, write_whole
from edgeproxy.edge.usage.segment import HEAD, MODULUS, Damage, Disk, Mark, Record, pack_record, parse_records
from edgeproxy.wire.batch import Batch, InvalidBatchError, compute_digest, parse_batch

SEGMENT_BYTES = 1 << 20
"""A segment with this many bytes is full. At each start the last segment is read, in half a second."""
RETENTION_SECONDS = 7 * 86400.0
RETENTION_BYTES = 1 << 30
RETENTION_SHARE = 4
"""Bounds on acknowledged batches kept for a collector that was restored from a backup: seconds, bytes, and the divisor
of the file system's size that also bounds the bytes.
"""
WATERMARK = "watermark.json"
DISCARDED = "discarded.json"
SEGMENT = re.compile(r"([0-9]{10,19})\.seg")


class BrokenSpoolError(Exception):
    """The end of the spool cannot be read though it was sealed, so the predecessor of the next batch is unknown."""


class DamagedSpoolError(Exception):
    """A batch that is needed cannot be read."""


class LastBatch(NamedTuple):
    """The batch that the next one follows. `counted`: see segment.py."""

    seq: int
    digest: str
    until: int
    counted: int = 0


class SpoolEnd(NamedTuple):
    """The readable end of the spool: `size` bytes of the segment `path`, whose last record has the batch `last`."""

    path: Path
    size: int
    last: LastBatch


class Position(NamedTuple):
    """The collector's progress: the last batch that it has, the count up to it, and the end of its time."""

    seq: int
    counted: int
    until: int


class Pending(NamedTuple):
    """The batches that were sealed and not acknowledged.

    `values` is the sum over all rows. `since` is a Unix second no later than their first count; None without any.
    """

    batches: int
    values: int
    since: int | None


class DiscardedRange(NamedTuple):
    """Unreadable batches that an operator discarded, both ends included; `why` is their damage."""

    first: int
    last: int
    why: str


class LocatedDamage(NamedTuple):
    """Damage, and its file."""

    path: Path
    damage: Damage

    def __str__(self) -> str:
        return f"{self.path}:{self.damage.offset}: {self.damage.why} ({self.damage.until - self.damage.offset} bytes)"


def list_segments(folder: Path) -> list[Path]:
    """List the segments, oldest first."""
    try:
        paths = [path for path in folder.iterdir() if SEGMENT.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    return sorted(paths, key=parse_first_seq)


def parse_first_seq(path: Path) -> int:
    """Parse the number of a segment's first batch from its name."""
    return int(path.stem)


def fetch_watermark(folder: Path) -> int:
    """Return the number of the last acknowledged batch stored on disk, or 0 if there is none."""
    position = fetch_position(folder)
    return 0 if position is None else position[0].seq


def fetch_position(folder: Path) -> tuple[Position, int] | None:
    """Read the collector's progress, and the last batch that it ever acknowledged; None if they are not stored."""
    try:
        fields = orjson.loads((folder / WATERMARK).read_bytes())
        seq, counted, until, most = (fields[field] for field in ("seq", "counted", "until", "most"))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not all(type(value) is int and value >= 0 for value in (seq, counted, until, most)):
        return None
    return Position(seq, counted, until), max(seq, most)


def guess_position(paths: list[Path]) -> Position:
    """Guess the collector's progress if it is not stored: batches that are no longer here were acknowledged."""
    if not paths:
        return Position(0, 0, 0)
    seq = parse_first_seq(paths[0]) - 1
    for record in parse_records(paths[0].read_bytes(), marked=False):
        if isinstance(record, Record):
            try:
                batch = parse_batch(record.body)
            except InvalidBatchError:
                continue
            return Position(seq, count_before(batch, record.counted), batch.since)
    return Position(seq, 0, 0)


def count_before(batch: Batch, counted: int) -> int:
    """Return the count before this batch; `counted` includes it."""
    return (counted - sum_values(batch)) % MODULUS


def sum_values(batch: Batch) -> int:
    """Sum the values of a batch."""
    return sum(row[3] for row in batch.rows)


def fetch_discarded(folder: Path) -> tuple[DiscardedRange, ...]:
    """Read which batches were discarded. Raises OSError, or DamagedSpoolError if the file is damaged."""
    try:
        return tuple(
            DiscardedRange(first, last, why) for first, last, why in orjson.loads((folder / DISCARDED).read_bytes())
        )
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError) as error:
        raise DamagedSpoolError(f"{folder / DISCARDED} is damaged ({error}): remove it, and discard again") from error


def record_discarded(folder: Path, more: tuple[DiscardedRange, ...]) -> None:
    """Record that these batches are discarded, durably, all or none; the edge may ship meanwhile.

    Raises OSError or DamagedSpoolError.
    """
    ranges = [list(interval) for interval in (*fetch_discarded(folder), *more)]
    write_whole(folder / DISCARDED, orjson.dumps(ranges, option=orjson.OPT_APPEND_NEWLINE))


class Spool:
    """The spool, for its only writer. `end` is None if the spool is empty.

    `recent` has the records of the last segment when it was opened, and `damage` its unreadable parts.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.end: SpoolEnd | None = None
        self.recent: tuple[Record, ...] = ()
        self.damage: tuple[LocatedDamage, ...] = ()
        self.passed = Position(0, 0, 0)
        self.most = 0
        self._disk = disk
        # Owned by the appending thread:
        self._fd: int | None = None
        self._path = folder
        self._size = 0
        self._dirty = False
        # Owned by the shipping thread:
        self._since = 0
        self._saved: tuple[Position, int] | None = None
        self._saving = threading.Lock()

    @property
    def last(self) -> LastBatch | None:
        """The batch that the next one follows; None before the first."""
        return None if self.end is None else self.end.last

    @property
    def watermark(self) -> int:
        """The last batch that the collector has acknowledged; 0 if there is none."""
        return self.passed.seq

    @classmethod
    def open(cls, folder: Path, *, sealed: int = 0, disk: Disk | None = None) -> "Spool":
        """Open or create the spool, and cut off the incomplete rest of a crash.

        `sealed` is the last batch that is known to have been sealed: if it cannot be read, the damage is not a torn
        tail. Raises BrokenSpoolError then, or OSError; the spool stays unchanged.
        """
        spool = cls(folder, disk or Disk())
        spool._open(sealed)
        return spool

    def _open(self, sealed: int) -> None:
        paths = list_segments(self.folder)
        content = paths[-1].read_bytes() if paths else b""
        parsed = list(parse_records(content)) if paths else []
        self.recent = tuple(record for record in parsed if isinstance(record, Record))
        self.end = _find_end(paths, self.recent)
        self._saved = fetch_position(self.folder)
        self.passed, most = self._saved or (guess_position(paths), 0)
        self.most = max(most, self.passed.seq)
        last_of_full = parse_first_seq(paths[-1]) - 1 if paths else 0
        # Three places know a last batch: the tables, the acknowledged position, and the name of the last segment. None
        # of them may be ahead of the spool.
        expected = max(sealed, self.most, last_of_full)
        last_seq = 0 if self.last is None else self.last.seq
        if last_seq < expected:
            last_readable = f"{last_seq} is the last one" if last_seq else "none"
            raise BrokenSpoolError(f"{self.folder}: batch {expected} was sealed, and {last_readable} that can be read")
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True)
            sync_folder(self.folder.parent)
        # A kill within `write_whole` leaves its temporary file.
        for temporary_file in self.folder.glob(f"{WATERMARK}.*.tmp"):
            temporary_file.unlink(missing_ok=True)
        if not paths:
            self._saved = self.passed, self.most
            return
        size = _end_offset(self.recent) if self.recent else len(HEAD)
        self.damage = tuple(
            LocatedDamage(paths[-1], part)
            for part in parsed
            if isinstance(part, Damage) and part.offset < size and self.recent
        )
        fd = os.open(paths[-1], os.O_RDWR | os.O_CLOEXEC)
        try:
            self._disk.truncate(fd, min(size, len(content)))
            # A last record in the page cache may not be on the disk: the failure of an earlier sync may be forgotten.
            # Write it again.
            start = self.recent[-1].offset if self.recent else 0
            self._disk.write(fd, content[start:size] if self.recent else HEAD, start)
            self._disk.sync(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._path, self._size, self._since = fd, paths[-1], size, self.passed.until

    @property
    def is_full(self) -> bool:
        """True if the next record begins a segment: the disk must have the tables first."""
        return self._fd is None or self._size >= SEGMENT_BYTES

    def append(self, batch: Batch, body: bytes, marks: tuple[Mark, ...]) -> None:
        """Write the batch that follows `last` durably. Raises OSError, and then the batch is not sealed."""
        counted = ((0 if self.end is None else self.end.last.counted) + sum_values(batch)) % MODULUS
        data = pack_record(body, marks, counted)
        if self.is_full:
            self._begin(batch.seq)
        fd = self._fd
        assert fd is not None
        if self._dirty:
            self._disk.truncate(fd, self._size)
        self._dirty = True
        try:
            self._disk.write(fd, data, self._size)
            self._disk.sync(fd)
        except OSError:
            # The incomplete record must not be found after a crash. If this fails too, the next append tries again.
            try:
                self._disk.truncate(fd, self._size)
            except OSError:
                pass
            raise
        self._dirty = False
        self._size += len(data)
        if not self.pending.values:
            self._since = batch.since
        self.end = SpoolEnd(self._path, self._size, LastBatch(batch.last, compute_digest(body), batch.until, counted))

    def _begin(self, seq: int) -> None:
        """Make the segment whose first batch is `seq` the current one."""
        path = self.folder / f"{seq:010d}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # The directory is synced too: the name of the segment must survive a power cut.
            self._disk.write(fd, HEAD, 0)
            self._disk.sync(fd)
            sync_folder(self.folder)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._path, self._size, self._dirty = fd, path, len(HEAD), False

    @property
    def pending(self) -> Pending:
        """The batches that were sealed and not acknowledged."""
        # In this order: meanwhile there may be one more, but not one less.
        passed, end = self.passed, self.end
        if end is None or end.last.seq <= passed.seq:
            return Pending(0, 0, None)
        sums = (end.last.counted - passed.counted) % MODULUS
        return Pending(end.last.seq - passed.seq, sums, self._since if sums else None)

    @property
    def size(self) -> int:
        """Bytes that the segments take on disk."""
        return sum(path.stat().st_size for path in list_segments(self.folder))

    def acknowledge(self, passed: Position) -> None:
        """Record that the collector has all batches up to this one, and no later one.

        `save` writes it to disk. A lower position is written at once, because batches that were removed meanwhile could
        not be shipped again. Raises OSError then.
        """
        if passed.seq < self.passed.seq:
            self._save(passed, max(self.most, self.passed.seq))
        self._since = passed.until
        self.passed, self.most = passed, max(self.most, passed.seq)

    @property
    def is_unsaved(self) -> bool:
        """True if the stored position is behind the acknowledged one."""
        return self._saved != (self.passed, self.most)

    def save(self) -> None:
        """Save the acknowledged position to disk. Raises OSError."""
        self._save(self.passed, self.most)

    def _save(self, passed: Position, most: int) -> None:
        with self._saving:
            if self._saved != (passed, most):
                document = {**passed._asdict(), "most": most}
                write_whole(self.folder / WATERMARK, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
                self._saved = passed, most

    def prune(
        self, now: float, *, retention_seconds: float = RETENTION_SECONDS, retention_bytes: int | None = None
    ) -> tuple[Path, ...]:
        """Remove acknowledged batches beyond the retention of age or size. `now` is Unix time.

        Batches that the stored position does not cover stay, and so does the last segment.
        """
        end, saved = self.end, self._saved
        if end is None or saved is None:
            return ()
        if retention_bytes is None:
            file_system = os.statvfs(self.folder)
            retention_bytes = min(RETENTION_BYTES, file_system.f_frsize * file_system.f_blocks // RETENTION_SHARE)
        paths = list_segments(self.folder)
        used_bytes = sum(path.stat().st_size for path in paths)
        removed = []
        for path, following in pairwise(paths):
            status = path.stat()
            is_retained = used_bytes <= retention_bytes and now - status.st_mtime < retention_seconds
            if path == end.path or parse_first_seq(following) - 1 > min(saved[0].seq, self.passed.seq) or is_retained:
                break
            path.unlink()
            used_bytes -= status.st_size
            removed.append(path)
        return tuple(removed)

    def close(self) -> None:
        """Close the segment, once."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _find_end(paths: list[Path], recent: tuple[Record, ...]) -> SpoolEnd | None:
    """Find the end of a spool whose last segment has these records; None if it is empty.

    Raises BrokenSpoolError.
    """
    if recent:
        return SpoolEnd(paths[-1], _end_offset(recent), _parse_last(recent))
    if len(paths) > 1:
        # The segment was just begun. The previous one ends with the record before its first.
        previous = tuple(record for record in parse_records(paths[-2].read_bytes()) if isinstance(record, Record))
        if previous:
            return SpoolEnd(paths[-2], _end_offset(previous), _parse_last(previous))
    return None


def _end_offset(batches: tuple[Record, ...]) -> int:
    """Find the end of the last of these records."""
    return batches[-1].offset + batches[-1].size


def _parse_last(batches: tuple[Record, ...]) -> LastBatch:
    """Return the batch of the last of these records. Raises BrokenSpoolError if it has none."""
    try:
        batch = parse_batch(batches[-1].body)
    except InvalidBatchError as error:
        raise BrokenSpoolError(f"the last record of the spool holds no batch: {error}") from error
    return LastBatch(batch.last, compute_digest(batches[-1].body), batch.until, batches[-1].counted)
