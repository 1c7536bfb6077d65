"""The part of a request's body that is kept on disk until the upstream takes it.

The file has no name, so it disappears with the process. Threads wait for the disk, one operation at a time; the loop
does not.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, ParamSpec, TypeVar

from edgeproxy.base import log
from edgeproxy.base.shares import ALL, Claim, Places, Share
from edgeproxy.base.tasks import Tasks
from edgeproxy.edge.errors import RejectedError

P = ParamSpec("P")
T = TypeVar("T")

READ_BYTES = 128 << 10
"""Bytes that are read at once."""
ADDRESS_SHARE = 1 / 2
"""Maximum fraction of the bytes on disk for one address or one IPv6 network."""
OPERATIONS_MAX = 8
"""Maximum number of disk operations at a time. The end of an operation continues its request in one turn of the event
loop, so this number bounds the length of the turn.
"""
LOG_SECONDS = 60.0
"""Seconds between two log lines about bodies that are refused for lack of room."""


def create_no_room_error() -> RejectedError:
    """Return the error of a client whose body cannot be kept."""
    return RejectedError(503, "The edge has no room for this body at the moment", fields=b"Retry-After: 1\r\n")


class BodySpace:
    """The bytes of all bodies of a worker that are on disk, or on their way there. Each address has a share."""

    __slots__ = ("_log", "_operations", "_places")

    def __init__(self) -> None:
        self._places = Places(0)
        self._operations = asyncio.Semaphore(OPERATIONS_MAX)
        self._log = log.RateLimitedLog(LOG_SECONDS)

    @property
    def used_bytes(self) -> int:
        """The bytes of all bodies."""
        return self._places.in_use

    def has_room(self, claim: Claim, size: int, most: int) -> bool:
        """Return whether a claim may take `size` more bytes, with at most `most` for all claims. Log it if not."""
        self._places.amount = most
        key = self._places.find_exhausted(claim, units=size)
        if key is None:
            return True
        why = "as many bytes as may be are on disk" if key == ALL else "its address has as many bytes on disk as may be"
        self._log.error(f"a body is refused: {why}", f"limits.buffered {key}".strip(), used=self.used_bytes)
        return False

    def take(self, claim: Claim, size: int) -> None:
        """Add `size` bytes to the claim."""
        self._places.take(claim, size)

    def release(self, claim: Claim, size: int) -> None:
        """Subtract `size` bytes from the claim."""
        self._places.release(claim, size)

    async def operate(self, operation: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Run a disk operation in a thread, once a place is free. Raises the errors of the operation."""
        async with self._operations:
            return await asyncio.to_thread(operation, *arguments, **named)


def build_claim(subject: bytes) -> Claim:
    """Return the claim of an address to disk space for bodies; `subject` is the address or its network."""
    return (Share(f"address {subject.hex()}", ADDRESS_SHARE),)


class BodyFile:
    """The file of one request. `stored` is called when all appended data is on disk, `failed` when the disk fails."""

    __slots__ = (
        "_at",
        "_busy",
        "_claim",
        "_closed",
        "_failed",
        "_file",
        "_folder",
        "_pending",
        "_size",
        "_space",
        "_stored",
        "_tasks",
        "_writable",
        "_write",
        "is_sent",
    )

    def __init__(
        self,
        folder: Path,
        space: BodySpace,
        claim: Claim,
        tasks: Tasks,
        stored: Callable[[], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._folder, self._space, self._claim, self._tasks = folder, space, claim, tasks
        self._stored, self._failed = stored, failed
        self._file: IO[bytes] | None = None
        self._pending: list[bytes] = []
        self._writable = asyncio.Event()
        self._busy = self._closed = False
        self._size = self._at = 0
        self._write: Callable[[bytes], bool] | None = None
        self.is_sent = False
        """True if all of it was written to the upstream."""

    @property
    def pending_bytes(self) -> int:
        """Bytes that are still to be stored."""
        return sum(map(len, self._pending))

    @property
    def is_busy(self) -> bool:
        """True if some of it is being stored or read."""
        return self._busy

    def append(self, data: bytes) -> None:
        """Append this to the stored data."""
        self._pending.append(data)
        self._size += len(data)
        self._space.take(self._claim, len(data))
        if not self._busy:
            self._busy = True
            self._tasks.start("store a body", self._store())

    async def _store(self) -> None:
        failure = None
        try:
            file = self._file
            if file is None:
                file = self._file = await self._space.operate(open_unnamed_file, self._folder)
            while self._pending and not self._closed:
                data = b"".join(self._pending)
                self._pending.clear()
                await self._space.operate(write_all, file, data)
        except OSError as error:
            failure = error
        await self._finish_operation()
        if self._closed:
            return
        if failure is None:
            self._stored()
        else:
            self._failed(failure)

    def send(self, write: Callable[[bytes], bool]) -> None:
        """Write all of it, a piece at a time. After `write` returns False, it continues with `resume_sending`.

        A second call starts from the beginning, and the previous `write` gets nothing more.
        """
        self._write, self._at, self.is_sent = write, 0, False
        self._writable.set()
        if not self._busy:
            self._busy = True
            self._tasks.start("send a body", self._send())

    async def _send(self) -> None:
        assert self._file is not None
        failure = None
        try:
            while not self._closed and not self.is_sent:
                write, at = self._write, self._at
                assert write is not None
                piece = await self._space.operate(os.pread, self._file.fileno(), READ_BYTES, at)
                if self._closed:
                    break
                if write is not self._write:
                    continue
                self._at += len(piece)
                self.is_sent = self._at == self._size
                self._writable.clear()
                if not write(piece) and not self.is_sent:
                    await self._writable.wait()
        except OSError as error:
            failure = error
        await self._finish_operation()
        if failure is not None and not self._closed:
            self._failed(failure)

    def resume_sending(self) -> None:
        """Continue sending: the upstream takes more."""
        self._writable.set()

    def close(self) -> None:
        """Drop the file once the current operation has ended."""
        self._closed = True
        self._pending.clear()  # Free the memory now: the current operation may wait long for a thread.
        self._writable.set()
        if not self._busy:
            self._busy = True
            self._tasks.start("drop a body", self._finish_operation())

    async def _finish_operation(self) -> None:
        """End the current operation, and close the file if it is no longer needed."""
        if self._closed:
            try:
                if self._file is not None:
                    # The removal of a large file takes a while.
                    await self._space.operate(self._file.close)
            finally:
                self._space.release(self._claim, self._size)
                self._size = 0
        self._busy = False


def open_unnamed_file(folder: Path) -> IO[bytes]:
    """Open an unbuffered, unnamed file in this folder. No other process can open it. Raises OSError."""
    return tempfile.TemporaryFile(buffering=0, dir=folder)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all data to an unbuffered file. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
