"""File locks that end with their process, however it ends."""

import fcntl
import os
from pathlib import Path
from time import monotonic, sleep

from edgeproxy.edge.counters.file import TableError

SETUP_WAIT_SECONDS = 60.0
"""Seconds to wait for another process that sets the tables up; after them it counts as hanging."""


class FileLock:
    """A lock on a file of its own, through an open file description of its own: never inherited, never shared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """True if this object holds the lock."""
        return self._fd is not None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Acquire the lock without waiting; return whether it is held now."""
        if self._fd is not None:
            return True
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def acquire(self, *, shared: bool = False, patience: float = SETUP_WAIT_SECONDS) -> None:
        """Acquire the lock, waiting up to `patience` seconds; raises TableError if another process holds it for
        longer.
        """
        deadline = monotonic() + patience
        while not self.try_acquire(shared=shared):
            if monotonic() >= deadline:
                raise TableError(self.path, f"has been held by another process for {patience:.0f} s")
            sleep(0.005)

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
