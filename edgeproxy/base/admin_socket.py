"""The socket of the admin listener in the state directory: for who may write to that directory, and nobody else.

It is bound under a name of its own and then takes the place of the one before, so that of two supervisors on one
directory the later one is asked.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "admin.sock"
OWNER_ONLY = 0o600


class AdminSocket:
    """One supervisor's socket in a state directory, bound and not yet listening."""

    def __init__(self, state: Path) -> None:
        """Raises OSError where the directory takes no socket."""
        self.path = state / NAME
        own = state / f"{NAME}.{os.getpid()}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                own.unlink()
            with short_path(own) as name:
                self.socket.bind(name)
            # Nobody can connect before it listens.
            own.chmod(OWNER_ONLY)
            self._inode = own.stat().st_ino
        except OSError:
            self.socket.close()
            raise
        self._own = own

    def publish(self) -> None:
        """Be the one that is asked; it has to listen by then."""
        self._own.replace(self.path)

    def is_published(self) -> bool:
        """Whether whoever asks at the path asks this one."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Be asked no more."""
        with suppress(FileNotFoundError):
            (self.path if self.is_published() else self._own).unlink()
        self.socket.close()


def has_listener(state: Path) -> bool:
    """Whether some supervisor listens at the socket of this state directory."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        short_path(state / NAME) as name,
    ):
        probe.connect(name)
        return True
    return False


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Name a socket by a path that is short enough for it (107 bytes), however deep its directory is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
