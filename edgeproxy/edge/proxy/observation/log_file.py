"""A log file with its own thread, so that writers of lines never wait for a disk.

Several processes may append to one file. Each holds the file's lock while it writes, so lines are always whole. A file
that was moved or removed is created again. Lines that cannot be written are dropped and counted.
"""

import errno
import fcntl
import os
import select
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

WAITING_BYTES_MAX = 8 << 20
"""Bytes that may wait to be written; further lines are dropped."""

FILE_MODE = 0o640
"""The mode of a created file: the requests of customers are not for every user to read."""

STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""Files that are open already. If they are sockets, as under systemd, they cannot be opened by name."""

OPENED = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC

TOO_SLOW = "it takes lines more slowly than they come"


class LogFile:
    """A file to append to. One thread calls the methods; another one writes."""

    def __init__(self, path: Path) -> None:
        self._batches: SimpleQueue[bytes | None] = SimpleQueue()
        self._writer = LogWriter(path, self._batches)
        self._thread: Thread | None = None
        self._ending = False
        self._handed_bytes = self._handed_lines = self._dropped = self._reported = 0

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Write these lines, each with its newline, as soon as the file takes them. Drop them if too many wait."""
        batch = b"".join(lines)
        if self._handed_bytes - self._writer.handled_bytes + len(batch) > WAITING_BYTES_MAX:
            self._dropped += len(lines)
            return
        self._handed_bytes += len(batch)
        self._handed_lines += len(lines)
        self._batches.put(batch)
        if self._thread is None:
            # A daemon thread, so that no wait of it keeps the process from ending.
            self._thread = Thread(target=self._writer.run, name="log file", daemon=True)
            self._thread.start()

    def take_lost_lines(self) -> tuple[int, str]:
        """Return (lines lost since the last call, the reason for the last of them)."""
        lost = self._dropped + self._writer.failed_lines
        new, self._reported = lost - self._reported, lost
        return new, self._writer.why or TOO_SLOW

    def finish(self) -> None:
        """Write the waiting lines, for as long as it takes; no more come. Does not block, see `is_finished`."""
        if self._thread is not None and not self._ending:
            self._ending = True
            self._batches.put(None)

    @property
    def is_finished(self) -> bool:
        """True once nothing is written any more, after `finish`."""
        return self._thread is None or not self._thread.is_alive()

    def close(self, seconds: float) -> None:
        """Write the waiting lines, for at most `seconds`. The rest is lost."""
        if self._thread is not None:
            self.finish()
            self._thread.join(seconds)
            self._dropped += self._handed_lines - self._writer.handled_lines


class LogWriter:
    """The thread's side: takes batches of lines until it gets None. Other threads only read its attributes."""

    def __init__(self, path: Path, batches: "SimpleQueue[bytes | None]") -> None:
        self.handled_bytes = self.handled_lines = self.failed_lines = 0
        """Processed bytes and lines, and the lines among them that were not written."""
        self.why = ""
        """The reason for the last failure."""
        self._path = path
        self._stream = STREAMS.get(str(path))
        self._batches = batches
        self._fd = -1
        self._opened: os.stat_result

    def run(self) -> None:
        """Write until the queue ends."""
        while (batch := self._batches.get()) is not None:
            whole = 0
            try:
                self._open()
                append = self._append_locked if stat.S_ISREG(self._opened.st_mode) else self._append
                whole, failure = append(batch)
            except OSError as error:
                failure = error
            if failure is not None:
                self.failed_lines += batch.count(b"\n", whole)
                self.why = failure.strerror or str(failure)
                self._close()
            self.handled_lines += batch.count(b"\n")
            self.handled_bytes += len(batch)
        self._close()

    def _open(self) -> None:
        """Open the file of this name, which is another one after a rotation. For a FIFO this waits for its reader."""
        if self._fd >= 0 and (self._stream is not None or is_same_file(self._opened, self._path)):
            return
        self._close()
        self._fd = os.open(self._path, OPENED, FILE_MODE) if self._stream is None else os.dup(self._stream)
        self._opened = os.fstat(self._fd)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append_locked(self, batch: bytes) -> tuple[int, OSError | None]:
        """Append under the file's lock. Return (bytes of whole lines that are in the file now, the error that stopped
        it).

        No part of a line stays there.
        """
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # Closing the file unlocks it as well.
        begin = os.fstat(self._fd).st_size
        written, failure = write_all(self._fd, batch)
        whole = batch.rfind(b"\n", 0, written) + 1
        if whole < written and os.fstat(self._fd).st_size == begin + written:
            os.ftruncate(self._fd, begin + whole)
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return whole, failure

    def _append(self, batch: bytes) -> tuple[int, OSError | None]:
        """Append to a special file. A pipe keeps lines whole if no piece is too large for it."""
        whole = 0
        for piece in split_for_pipe(batch) if stat.S_ISFIFO(self._opened.st_mode) else (batch,):
            written, failure = write_all(self._fd, piece)
            whole += piece.rfind(b"\n", 0, written) + 1
            if failure is not None:
                return whole, failure
        return whole, None


def write_all(fd: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all data, however long that takes. Return (bytes written, the error that stopped it)."""
    written = 0
    while written < len(data):
        try:
            written += os.write(fd, memoryview(data)[written:])
        except BlockingIOError:  # Another process has made the stream non-blocking.
            select.select((), (fd,), ())
        except OSError as error:
            return written, error
    return written, None


def split_for_pipe(lines: bytes) -> Iterator[bytes]:
    """Split into whole lines that a pipe keeps together (at most PIPE_BUF bytes), unless one line is longer."""
    begin = 0
    while begin < len(lines):
        end = lines.rfind(b"\n", begin, begin + select.PIPE_BUF) + 1 or lines.index(b"\n", begin) + 1
        yield lines[begin:end]
        begin = end


def is_same_file(opened: os.stat_result, path: Path) -> bool:
    """Return whether the opened file still has this name."""
    try:
        return os.path.samestat(opened, path.stat())
    except OSError:
        return False


def describe_problem(path: Path) -> str | None:
    """Return why the file cannot be created or appended to; None if no problem can be detected."""
    if str(path) in STREAMS:
        return None
    try:
        # Opened without waiting, because a FIFO may have no reader yet: then ENXIO is not a problem.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))
    except FileNotFoundError:
        folder = path.parent
        if not folder.is_dir():
            return f"the directory {folder} does not exist"
        return None if os.access(folder, os.W_OK | os.X_OK) else f"the directory {folder} may not be written to"
    except OSError as error:
        return None if error.errno == errno.ENXIO and path.is_fifo() else error.strerror or str(error)
    return None
