"""The part of a request's body that is kept on disk until the upstream takes it.

The file has no name, so it disappears with the process. Threads wait for the disk, one operation at a time; the loop
does not. A body that ends while it waits for an operation leaves the queue at once: otherwise a flood of bodies that
begin and end would fill the queue faster than a disk empties it.
"""

import asyncio
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from edgeproxy.base import log
from edgeproxy.base.shares import ALL, Claim, Places, Share
from edgeproxy.base.tasks import Tasks
from edgeproxy.edge.errors import RejectedError

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


class OperationQueue:
    """The places for disk operations of a worker: OPERATIONS_MAX at a time, in order of request.

    Closes come first. So no more files are open than there are bodies still being sent.
    """

    __slots__ = ("_closes", "_free", "_others")

    def __init__(self) -> None:
        self._free = OPERATIONS_MAX
        self._closes: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._others: OrderedDict[asyncio.Future[bool], None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Number of requested operations without a place."""
        return len(self._closes) + len(self._others)

    def request(self, *, is_close: bool = False) -> asyncio.Future[bool]:
        """Return a future. Its result is True once the operation may run, or False after `withdraw`."""
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            place.set_result(True)
        else:
            (self._closes if is_close else self._others)[place] = None
        return place

    def withdraw(self, place: asyncio.Future[bool]) -> None:
        """End the wait for a place. A place that is granted already stays granted."""
        if place in self._others:
            del self._others[place]
            # Not cancelled: the task that waits has a file to close.
            place.set_result(False)

    def release(self) -> None:
        """Give the place of an ended operation to the next one."""
        for queue in (self._closes, self._others):
            while queue:
                place, _ = queue.popitem(last=False)
                if not place.done():  # The end of the worker cancels the tasks that wait.
                    place.set_result(True)
                    return
        self._free += 1


class BodySpace:
    """The bytes of all bodies of a worker that are on disk, or on their way there. Each address has a share."""

    __slots__ = ("_log", "_places", "_threads", "operations")

    def __init__(self) -> None:
        self._places = Places(0)
        # A stalled disk occupies these threads alone. The loop's own threads prepare reloads.
        self._threads = ThreadPoolExecutor(OPERATIONS_MAX, "bodies")
        self.operations = OperationQueue()
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

    def run(self, operation: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Run a disk operation in a thread. The caller has a place in `operations`."""
        return asyncio.get_running_loop().run_in_executor(self._threads, operation, *arguments)

    def take(self, claim: Claim, size: int) -> None:
        """Add `size` bytes to the claim."""
        self._places.take(claim, size)

    def release(self, claim: Claim, size: int) -> None:
        """Subtract `size` bytes from the claim."""
        self._places.release(claim, size)


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
        "_pending_bytes",
        "_place",
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
        self._pending_bytes = 0
        self._place: asyncio.Future[bool] | None = None
        self._writable = asyncio.Event()
        self._busy = self._closed = False
        self._size = self._at = 0
        self._write: Callable[[bytes], bool] | None = None
        self.is_sent = False
        """True if all of it was written to the upstream."""

    @property
    def pending_bytes(self) -> int:
        """Bytes in memory that are not on disk yet, with the bytes of the current operation."""
        return self._pending_bytes

    @property
    def is_busy(self) -> bool:
        """True if some of it is being stored or read."""
        return self._busy

    def append(self, data: bytes) -> None:
        """Append this to the stored data."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        self._size += len(data)
        # Before it is written, so that waiting bodies count in the bound, too.
        self._space.take(self._claim, len(data))
        if not self._busy:
            self._busy = True
            self._tasks.start("store a body", self._store())

    async def _store(self) -> None:
        failure = None
        try:
            while self._pending and await self._take_place():
                try:
                    # All that has come during the last write, in one write.
                    data = b"".join(self._pending)
                    self._pending.clear()
                    if self._file is None:
                        self._file = await self._space.run(open_unnamed_file, self._folder)
                    await self._space.run(write_all, self._file, data)
                finally:
                    self._space.operations.release()
                self._pending_bytes = sum(map(len, self._pending))
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
            while not self.is_sent and await self._take_place():
                write, at = self._write, self._at
                assert write is not None
                try:
                    piece = await self._space.run(os.pread, self._file.fileno(), READ_BYTES, at)
                finally:
                    self._space.operations.release()
                if self._closed:
                    break
                # `send` was called again, for another endpoint: the piece is of the earlier attempt.
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
        self._pending.clear()  # Free the memory now: the current operation may take long.
        self._pending_bytes = 0
        self._writable.set()
        if self._place is not None:
            self._space.operations.withdraw(self._place)
        if not self._busy:
            self._busy = True
            self._tasks.start("drop a body", self._finish_operation())

    async def _take_place(self) -> bool:
        """Wait for a disk operation's place. Return False, without a place, if the body is closed."""
        if self._closed:
            return False
        self._place = self._space.operations.request()
        try:
            is_granted = await self._place
        finally:
            self._place = None
        if is_granted and self._closed:
            self._space.operations.release()
        return not self._closed

    async def _finish_operation(self) -> None:
        """End the current operation, and close the file if it is no longer needed."""
        if self._closed:
            try:
                if self._file is not None:
                    await self._space.operations.request(is_close=True)
                    try:
                        await self._space.run(self._file.close)  # The removal of a large file takes a while.
                    finally:
                        self._space.operations.release()
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
