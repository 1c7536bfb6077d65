"""A table's file: created whole or not at all, validated when opened, never resized."""

import mmap
import os
import secrets
from collections.abc import Iterable, Sequence
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout

MAGIC = int.from_bytes(b"edge.tbl", "little")
FIRST_FORMAT_VERSION, SECOND_FORMAT_VERSION, THIRD_FORMAT_VERSION, FOURTH_FORMAT_VERSION = range(1, 5)
FIFTH_FORMAT_VERSION, FORMAT_VERSION = 5, 6
"""Versions of the format: in the second one tables of limits have other heads, in the third one rows of two parts, in
the fourth one their rings lie apart, in the fifth one the rests of long keys too, and in the sixth one some heads
(layout.py). Other tables are still written in the first version that has their layout, so that an older program can go
on with them.
"""

EXCLUSIVE = LOCK_EX | LOCK_NB
QUOTAS = "quotas"
KINDS = ("customers", "addresses", "usage", "metrics", "connections", QUOTAS, "end_users")


class TableError(OSError):
    """A file of the state directory cannot be created or is not valid; the text names it and the reason."""

    def __init__(self, path: Path, why: str, code: int | None = None) -> None:
        super().__init__(code, why, str(path))
        self.why = why

    def __str__(self) -> str:
        return f"{self.filename}: {self.why}"


class TableFile:
    """An open table: `words` is the whole file as one memoryview of 64-bit words."""

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        # Rows are visited at random: reading ahead would only fill memory.
        self._map.madvise(mmap.MADV_RANDOM)
        self.bytes = memoryview(self._map)
        self.words = words = self.bytes.cast("Q")
        kind = words[at.KIND]
        self.layout = Layout(
            KINDS[kind] if kind < len(KINDS) else "unknown",
            *(words[word] for word in (at.ROWS, at.COLUMNS, at.RING, at.CELLS, at.WIDTH, at.PARTS)),
        )
        self.no_room: OSError | None = None
        """The reason why the last chunk of rows could not be allocated."""
        self.generation = words[at.GENERATION]
        self.instance = words[at.INSTANCE]
        self.boot = words[at.BOOT]
        self.seed = bytes(self.bytes[at.SEED * at.WORD : (at.SEED + 2) * at.WORD])

    @classmethod
    def create(
        cls, path: Path, layout: Layout, *, generation: int, instance: int, boot: int, used_rows: int = 0
    ) -> None:
        """Create the file with its space allocated: a full disk must show here, not as SIGBUS later.

        Of a table of limits this is the space of a chunk of rows beyond `used_rows`; `grow` allocates the rest. Raises
        TableError, and leaves nothing behind, if the disk has no room for it.
        """
        if layout.columns > at.COLUMNS_MAX:
            raise TableError(path, f"has {layout.columns} columns, and {at.COLUMNS_MAX} is the most: fewer workers")
        header = memoryview(bytearray(at.PAGE)).cast("Q")
        header[at.MAGIC], header[at.KIND] = MAGIC, KINDS.index(layout.kind)
        header[at.VERSION] = _format_of(layout)
        header[at.GENERATION], header[at.INSTANCE], header[at.BOOT] = generation, instance, boot
        header[at.ROWS], header[at.COLUMNS] = layout.rows, layout.columns
        header[at.RING], header[at.CELLS], header[at.WIDTH] = layout.ring, layout.cells, layout.width
        header[at.PARTS] = layout.parts
        allocated = min(layout.rows, used_rows + layout.chunk) if layout.ring else layout.rows
        header[at.ALLOCATED] = allocated if layout.ring else 0
        header[at.SEED], header[at.SEED + 1] = secrets.randbits(64), secrets.randbits(64)
        # Half of the columns are spare: the columns of workers that are about to start count as active from the first.
        active = [*range(layout.columns // 2), *([] if layout.hub is None else [layout.hub])]
        for column in active:
            for bitmap in (at.USED_COLUMNS, at.ACTIVE_COLUMNS):
                header[bitmap + column // 64] |= 1 << column % 64
        write_whole(path, bytes(header.cast("B")), size=layout.size, extents=layout.list_extents(0, allocated))

    @classmethod
    def open(cls, path: Path, *, kind: str, instance: int) -> "TableFile":
        """Open a table that `create` wrote; raises TableError if it is anything else."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise TableError(path, f"cannot be opened: {error.strerror}", error.errno) from error
        try:
            size = os.fstat(fd).st_size
            if size < at.PAGE:
                raise TableError(path, f"is {size} bytes long, too short for a table: move it away")
            if size % at.WORD:  # Mapped words must be whole; only a whole table's head says how long it should be.
                raise TableError(path, f"is {size} bytes long, which no table is: it was cut or damaged, move it away")
            file = cls(path, fd, size)
        except BaseException:
            os.close(fd)
            raise
        try:
            file.check(kind, instance, size)
        except TableError:
            file.close()
            raise
        return file

    def check(self, kind: str, instance: int, size: int) -> None:
        """Raise TableError unless this is a table of this format, kind and state directory."""
        words = self.words
        if words[at.MAGIC] != MAGIC:
            raise TableError(self.path, "is not a table of edgeproxy: move it away")
        if not FIRST_FORMAT_VERSION <= words[at.VERSION] <= FORMAT_VERSION:
            raise TableError(
                self.path,
                f"has format version {words[at.VERSION]}, and this program reads {FORMAT_VERSION}: move it away",
            )
        if self.layout.kind != kind:
            raise TableError(self.path, f"holds {self.layout.kind}, not {kind}: move it away")
        if size != self.layout.size:
            raise TableError(
                self.path, f"is {size} bytes long and should be {self.layout.size}: it was cut or damaged, move it away"
            )
        if self.instance != instance:
            raise TableError(self.path, "belongs to another state directory: give each edge a directory of its own")

    def lock(self) -> bool:
        """Acquire the file's flock without waiting, and return whether it is held. Its holder assigns rows to keys."""
        try:
            flock(self.fd, EXCLUSIVE)
        except BlockingIOError:
            return False
        if self.words[at.PENDING]:
            # The holder before was killed in the middle of a change; maintenance of the tables repairs it.
            self.words[at.DAMAGED] = 1
            self.words[at.CHANGES] += 1
            self.words[at.COLUMNS_VERSION] += 1
        return True

    def grow(self) -> bool:
        """Allocate the space of one more chunk of rows; return False if there is none, or the disk has no room.

        For the flock's holder. A supervisor does it in time (edge/counters/maintenance.py), so a worker rarely does.
        """
        words, layout = self.words, self.layout
        before = words[at.ALLOCATED]
        after = min(layout.rows, before + layout.chunk)
        if not 0 < before < after:
            return False
        try:
            _allocate(self.fd, layout.list_extents(before, after))
        except OSError as error:
            self.no_room = error
            return False
        self.no_room = None
        words[at.ALLOCATED] = after
        return True

    def allocate(self, rows: int) -> bool:
        """Allocate the space of the first `rows` at least; return False if it cannot be had."""
        while self.words[at.ALLOCATED] and self.words[at.ALLOCATED] < rows:
            if not self.grow():
                return False
        return rows <= self.layout.rows

    def allocate_again(self) -> None:
        """Allocate the space that the header says is allocated, as a power cut may have undone it.

        Raises TableError if the disk has no room for it.
        """
        try:
            _allocate(self.fd, self.layout.list_extents(0, self.words[at.ALLOCATED] or self.layout.rows))
        except OSError as error:
            raise TableError(self.path, f"cannot be used: {error.strerror}", error.errno) from error

    def unlock(self) -> None:
        """Release the flock."""
        flock(self.fd, LOCK_UN)

    def flush(self) -> None:
        """Wait until the disk has everything that was stored here until now."""
        self._map.flush()

    @property
    def last_sealed(self) -> int:
        """The last batch of a table of usage whose marks are all in it; 0: none."""
        return self.words[at.SEALED]

    @last_sealed.setter
    def last_sealed(self, seq: int) -> None:
        self.words[at.SEALED] = seq

    @property
    def looked_until(self) -> int:
        """The last searched Unix second: a table of usage was searched for growth up to it."""
        return self.words[at.LOOKED]

    @looked_until.setter
    def looked_until(self, until: int) -> None:
        self.words[at.LOOKED] = until

    @property
    def is_closed(self) -> bool:
        """True if the file was closed, so that its words cannot be read any more."""
        return self._map.closed

    def close(self) -> None:
        """Unmap and close, once; all locks of this process on the file end."""
        if not self.is_closed:
            self.words.release()
            self.bytes.release()
            self._map.close()
            os.close(self.fd)


def _format_of(layout: Layout) -> int:
    if layout.parts >= at.APART:
        return FOURTH_FORMAT_VERSION + layout.parts - at.APART
    if layout.parts:
        return THIRD_FORMAT_VERSION
    return SECOND_FORMAT_VERSION if layout.ring and layout.width else FIRST_FORMAT_VERSION


def _allocate(fd: int, extents: Iterable[tuple[int, int]]) -> None:
    """Allocate the space of a file from each first byte to its end."""
    for start, end in extents:
        if start < end:  # The last rows may be in a page that is allocated, and a file must not grow beyond its layout.
            os.posix_fallocate(fd, start, end - start)


def write_whole(path: Path, content: bytes, *, size: int = 0, extents: Sequence[tuple[int, int]] | None = None) -> None:
    """Replace `path` by a file with `content`, and zeros up to `size` bytes: durable, all or nothing.

    The space of `extents`, each from its first byte to its end, is allocated; None: of all.
    """
    if extents is None:
        extents = [(0, max(size, len(content)))]
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _allocate(fd, extents)
            os.ftruncate(fd, max(size, len(content)))
            written = 0
            while written < len(content):
                written += os.pwrite(fd, content[written:], written)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        needed = f" ({sum(end - start for start, end in extents) >> 20} MiB are needed)" if size else ""
        raise TableError(path, f"cannot be made: {error.strerror}{needed}", error.errno) from error


def sync_folder(folder: Path) -> None:
    """Make renamed and unlinked names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
