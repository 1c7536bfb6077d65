"""The socket of the admin listener in the state directory, accessible only by its owner.

It is bound under a temporary name and then replaces an existing one. So if two supervisors use one directory, the later
one answers.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "admin.sock"
OWNER_ONLY = 0o600


class AdminSocket:
    """The socket of one supervisor in a state directory, bound and not yet listening."""

    def __init__(self, state: "Path") -> None:
        """Bind the socket. Raises OSError if this is impossible in the directory."""
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
        """Replace the socket at the path. It must listen already."""
        self._own.replace(self.path)

    def is_published(self) -> bool:
        """Return whether this is the socket at the path."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Remove the socket and close it."""
        with suppress(FileNotFoundError):
            (self.path if self.is_published() else self._own).unlink()
        self.socket.close()


def has_listener(state: "Path") -> bool:
    """Return whether a supervisor listens at the socket of this state directory."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
        short_path(state / NAME) as name,
    ):
        probe.connect(name)
        return True
    return False


@contextmanager
def short_path(path: "Path | str") -> Iterator[str]:
    """Yield a short form of a socket's path (at most 107 bytes), however deep its directory is."""
    folder, name = os.path.split(path)
    directory = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)
