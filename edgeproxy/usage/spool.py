"""The spool: sealed batches on disk, in order, until long after the collector has them.

    spool/NNNNNNNNNN.seg     records (segment.py); the number is that of its first batch
    spool/watermark.json     the last batch that the collector acknowledged

Only who holds the identity lock appends. A new segment is begun only when the disk has the tables with all marks of
the ones before, so that whoever comes after a crash, even after a power cut, need look at the last one only.
"""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import orjson

from edgeproxy.counters.file import sync_folder, write_whole
from edgeproxy.usage.batch import BadBatch, Batch, digest, read
from edgeproxy.usage.segment import HEAD, Damage, Disk, Mark, Record, pack, records

LARGE = 1 << 20
"""Bytes from which on the next record begins another segment: what is read at each start, in half a second."""
KEPT_FOR = 7 * 86400.0
KEPT_BYTES = 1 << 30
"""How long, and how much of, what is acknowledged is kept for a collector that was restored from a backup."""
WATERMARK = "watermark.json"
SEGMENT = re.compile(r"([0-9]{10,19})\.seg")


class Broken(Exception):
    """The end of the spool cannot be read though it was sealed: nobody knows what the next batch has to follow."""


class Damaged(Exception):
    """A batch that is needed cannot be read."""


class Last(NamedTuple):
    """What the next batch follows."""

    seq: int
    digest: str
    until: int


class Place(NamedTuple):
    """Damage, and in which file."""

    path: Path
    damage: Damage

    def __str__(self) -> str:
        return f"{self.path}:{self.damage.offset}: {self.damage.why} ({self.damage.until - self.damage.offset} bytes)"


def segments(folder: Path) -> list[Path]:
    """The segments that there are, oldest first."""
    try:
        found = [path for path in folder.iterdir() if SEGMENT.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    return sorted(found, key=first_of)


def first_of(path: Path) -> int:
    """The number of the first batch of a segment."""
    return int(path.stem)


def watermark(folder: Path) -> int:
    """The last batch that the collector acknowledged; 0 where none, or nobody knows: what it has it takes again."""
    try:
        seq = orjson.loads((folder / WATERMARK).read_bytes())["seq"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    return seq if type(seq) is int and seq > 0 else 0


class Spool:
    """The spool as its one writer has it. `last`: what the next batch follows; None where it is the first.

    `recent`: the records of the last segment, as they were when it was opened; `damage`: what could not be read there.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.folder = folder
        self.last: Last | None = None
        self.recent: tuple[Record, ...] = ()
        self.damage: tuple[Place, ...] = ()
        self.watermark = watermark(folder)
        self._disk = disk
        self._fd: int | None = None
        self._path = folder
        self._size = 0
        self._dirty = False

    @classmethod
    def open(cls, folder: Path, *, sealed: int = 0, disk: Disk | None = None) -> "Spool":
        """Open or make the spool, and cut off what a crash left behind its last record.

        `sealed` is the last batch that is known to have been sealed: where it cannot be read, that is no torn tail.
        Raises Broken then, or OSError; the spool is as it was.
        """
        spool = cls(folder, disk or Disk())
        spool._open(sealed)
        return spool

    def _open(self, sealed: int) -> None:
        paths = segments(self.folder)
        content = paths[-1].read_bytes() if paths else b""
        found = list(records(content)) if paths else []
        self.recent = tuple(one for one in found if isinstance(one, Record))
        self.last = _last(self.recent)
        if self.last is None and len(paths) > 1:
            # It was just begun. The one before ended with the record that came before its first one.
            self.last = _last([one for one in records(paths[-2].read_bytes()) if isinstance(one, Record)])
        begun = first_of(paths[-1]) - 1 if paths else 0
        wanted = max(sealed, self.watermark, begun)
        there = 0 if self.last is None else self.last.seq
        if there < wanted:
            why = f"batch {wanted} was sealed, and {f'{there} is the last one' if there else 'none'} that can be read"
            raise Broken(f"{self.folder}: {why}")
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, parents=True)
            sync_folder(self.folder.parent)
        if not paths:
            return
        end = self.recent[-1].offset + self.recent[-1].size if self.recent else len(HEAD)
        self.damage = tuple(
            Place(paths[-1], one) for one in found if isinstance(one, Damage) and one.offset < end and self.recent
        )
        fd = os.open(paths[-1], os.O_RDWR | os.O_CLOEXEC)
        try:
            self._disk.cut(fd, min(end, len(content)))
            # Who finds the last record in memory does not know that the disk has it: a failed sync may be forgotten.
            start = self.recent[-1].offset if self.recent else 0
            self._disk.write(fd, content[start:end] if self.recent else HEAD, start)
            self._disk.sync(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._path, self._size = fd, paths[-1], end

    @property
    def is_full(self) -> bool:
        """Whether the next record begins a segment: the disk must have the tables first."""
        return self._fd is None or self._size >= LARGE

    def append(self, batch: Batch, body: bytes, marks: tuple[Mark, ...]) -> None:
        """Have the disk keep a batch, the one that follows `last`. Raises OSError, and then it is not sealed."""
        data = pack(body, marks)
        if self.is_full:
            self._begin(batch.seq)
        fd = self._fd
        assert fd is not None
        if self._dirty:
            self._disk.cut(fd, self._size)
        self._dirty = True
        try:
            self._disk.write(fd, data, self._size)
            self._disk.sync(fd)
        except OSError:
            # What was written must not be found by who comes after; where that fails too, the next append tries again.
            try:
                self._disk.cut(fd, self._size)
            except OSError:
                pass
            raise
        self._dirty = False
        self._size += len(data)
        self.last = Last(batch.last, digest(body), batch.until)

    def _begin(self, seq: int) -> None:
        """Make the segment whose first batch is `seq` the current one."""
        path = self.folder / f"{seq:010d}.seg"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
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
    def unshipped(self) -> int:
        """Batches that were sealed and not acknowledged."""
        return 0 if self.last is None else self.last.seq - min(self.last.seq, self.watermark)

    @property
    def size(self) -> int:
        """Bytes that the segments take on disk."""
        return sum(path.stat().st_size for path in segments(self.folder))

    def after(self, seq: int) -> Iterator[tuple[Batch, bytes]]:
        """The batches behind `seq` and their bodies, in order. Raises Damaged where one of them cannot be read."""
        paths = segments(self.folder)
        wanted, last = seq + 1, self.last
        for place, path in enumerate(paths):
            if place + 1 < len(paths) and first_of(paths[place + 1]) <= wanted:
                continue
            content = path.read_bytes()
            # Behind this a record may be under way.
            for one in records(content[: self._size] if path == self._path else content):
                if isinstance(one, Damage):
                    raise Damaged(str(Place(path, one)))
                try:
                    batch = read(one.body)
                except BadBatch as wrong:
                    raise Damaged(f"{path}:{one.offset}: {wrong}") from wrong
                if batch.seq > wanted:
                    raise Damaged(f"{path}:{one.offset}: batch {wanted} is missing")
                if batch.seq == wanted:
                    yield batch, one.body
                    wanted = batch.last + 1
        if last is not None and wanted <= last.seq:
            raise Damaged(f"{self.folder}: batch {wanted} is missing")

    def acknowledge(self, seq: int) -> None:
        """The collector has all batches up to `seq`, and says so of none behind it. Raises OSError."""
        write_whole(self.folder / WATERMARK, orjson.dumps({"seq": seq}, option=orjson.OPT_APPEND_NEWLINE))
        self.watermark = seq

    def prune(self, now: float, *, kept_for: float = KEPT_FOR, kept_bytes: int = KEPT_BYTES) -> tuple[Path, ...]:
        """Remove what was acknowledged and is older than that, or more. `now` is Unix time. Never the last segment."""
        paths = segments(self.folder)
        taken = sum(path.stat().st_size for path in paths)
        removed = []
        for path, following in pairwise(paths):
            status = path.stat()
            is_kept = taken <= kept_bytes and now - status.st_mtime < kept_for
            if first_of(following) - 1 > self.watermark or is_kept:
                break
            path.unlink()
            taken -= status.st_size
            removed.append(path)
        return tuple(removed)

    def close(self) -> None:
        """Close the segment, once."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _last(found: list[Record] | tuple[Record, ...]) -> Last | None:
    """What follows the last of these records; raises Broken where that holds no batch."""
    if not found:
        return None
    try:
        batch = read(found[-1].body)
    except BadBatch as wrong:
        raise Broken(f"the last record of the spool holds no batch: {wrong}") from wrong
    return Last(batch.last, digest(found[-1].body), batch.until)
