"""A queue of events in files of a directory. Added events survive a kill -9 of the adding process.

A segment is a file of lines, each the JSON of an event. One process writes it, and removes it once all of its events
are settled. After a kill in between, the whole segment is sent again with equal ids, and the collector counts each
event once.
"""

import fcntl
import os
import sys
from pathlib import Path
from threading import Lock

SEGMENT_BYTES = 1 << 20
"""The size in bytes of a full segment, which is then closed."""
SUFFIX = ".jsonl"


class QueueBusyError(Exception):
    """Another process uses the directory of the queue."""


class QueueFullError(Exception):
    """The queue has reached its maximum size: the event was not accepted."""


class Queue:
    """The segments of a directory, which belongs to one process at a time. Raises QueueBusyError and OSError."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bytes_max = bytes_max
        self._mutex = Lock()
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise QueueBusyError(f"another process uses {folder}: give each process a queue of its own") from None
        self._fd: int | None = None
        self._next = sys.maxsize
        there = self._closed()
        self._next = int(there[-1].stem) + 1 if there else 1
        """The number of the segment that is written, or written next."""
        self._bytes = sum(path.stat().st_size for path in there)
        self._size = 0
        self._is_synced = True

    def add(self, line: bytes) -> None:
        """Hand a line to the kernel to store. Raises QueueFullError or OSError, and then the line is not queued."""
        with self._mutex:
            if self._bytes + len(line) > self._bytes_max:
                raise QueueFullError(
                    f"{self._bytes} bytes of events wait to be sent, and {self._bytes_max} is the most"
                )
            if self._fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd, self._size = os.open(self._path(self._next), flags, 0o600), 0
            written = os.write(self._fd, line)
            if written < len(line):  # The disk is full: half of a line must not be the beginning of the next.
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
                raise OSError(f"{self._folder} has no room for an event")
            self._size += written
            self._bytes += written
            self._is_synced = False
            if self._size >= SEGMENT_BYTES:
                self._close()

    def sync(self) -> None:
        """Wait until added events are on disk, so that they survive a power cut."""
        with self._mutex:
            fd = None if self._fd is None or self._is_synced else os.dup(self._fd)
            self._is_synced = True
        if fd is not None:
            try:
                os.fsync(fd)  # Outside the mutex, so that other threads can add events meanwhile.
            finally:
                os.close(fd)

    def oldest(self) -> Path | None:
        """Return the next segment to send, which receives no further events, or None."""
        closed = self._closed()
        if not closed:
            with self._mutex:
                self._close()
            closed = self._closed()
        return closed[0] if closed else None

    def lines(self, segment: Path) -> list[bytes]:
        """Return the lines of a segment, without an incomplete last line, which was never accepted."""
        whole = segment.read_bytes()
        return whole[: whole.rfind(b"\n") + 1].splitlines()

    def remove(self, segment: Path) -> None:
        """Remove a segment, all of whose events were settled."""
        size = segment.stat().st_size
        segment.unlink()
        with self._mutex:
            self._bytes -= size

    @property
    def waiting_bytes(self) -> int:
        """Bytes of events that are not settled."""
        with self._mutex:
            return self._bytes

    def close(self) -> None:
        """Release the directory for the next process."""
        with self._mutex:
            self._close()
        os.close(self._lock)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            self._next += 1

    def _closed(self) -> list[Path]:
        """Return the segments in order, without the current one."""
        there = [path for path in self._folder.glob(f"*{SUFFIX}") if path.stem.isdigit()]
        return sorted(path for path in there if int(path.stem) < self._next)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012}{SUFFIX}"
