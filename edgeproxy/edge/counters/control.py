"""The control file: a page of one fixed layout, which lets processes of any version recognize each other.

Words of 64 bits; those without a name are zero:

    0 magic   1 instance   2 boot   3 offset   4 token   5 heartbeat   6 starts   7 place   8 hosts
    16… generation of each table
"""

import mmap
import os
import secrets
import struct
from hashlib import blake2b
from pathlib import Path

from edgeproxy.edge.counters.file import TableError, write_whole
from edgeproxy.edge.counters.memory_order import fence

MAGIC = int.from_bytes(b"edge.ctl", "little")
FILE_BYTES = 4096
MAGIC_WORD, INSTANCE, BOOT, OFFSET, TOKEN, HEARTBEAT, STARTS, PLACE, HOSTS = range(9)
GENERATIONS = {
    "customers": 16,
    "addresses": 17,
    "usage": 18,
    "metrics": 19,
    "connections": 20,
    "quotas": 21,
    "end_users": 22,
}

HEARTBEAT_FRESH_SECONDS = 5.0
"""A supervisor counts as dead after this many seconds without a heartbeat."""


def boot_digest(boot: str) -> int:
    """Return a digest of 64 bits of a boot id."""
    return int.from_bytes(blake2b(boot.encode(), digest_size=8).digest(), "little")


class Control:
    """The words of `control` in a state directory. Each is read and written whole."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = mmap.mmap(fd, FILE_BYTES)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def prepare(cls, path: Path) -> "Control":
        """Open the control file; create it with a new instance id if it is missing.

        For the holder of the setup lock.
        """
        if not path.exists():
            write_whole(path, struct.pack("<2Q", MAGIC, secrets.randbits(56) | 1), size=FILE_BYTES)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "Control":
        """Open the control file; raises TableError if it is missing or another kind of file."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise TableError(path, f"cannot be opened: {error.strerror}", error.errno) from error
        if os.fstat(fd).st_size != FILE_BYTES or os.pread(fd, 8, 0) != MAGIC.to_bytes(8, "little"):
            os.close(fd)
            raise TableError(path, "is not a control file of edgeproxy: move it and the tables beside it away")
        return cls(path, fd)

    @property
    def instance(self) -> int:
        """56 random bits, chosen once with the state directory."""
        return self._words[INSTANCE]

    @property
    def boot(self) -> int:
        """The digest of the boot that the offset belongs to."""
        return self._words[BOOT]

    @property
    def offset(self) -> float:
        """Edge time minus monotonic time, in seconds."""
        return self._words[OFFSET] / 1e6

    def begin_boot(self, boot: int, offset: float) -> None:
        """Record a new boot with its own monotonic clock, and so another offset (seconds, ≥ 0)."""
        # The offset first: if the process is killed between the two, this is done again.
        self._words[OFFSET] = round(offset * 1e6)
        fence()
        self._words[BOOT] = boot

    def write_offset(self, offset: float) -> None:
        """Set the offset (seconds, ≥ 0)."""
        self._words[OFFSET] = round(offset * 1e6)

    def count_start(self) -> int:
        """Count a start of a supervisor that uses the hub; return the number of starts.

        For the holder of the identity lock.
        """
        self._words[STARTS] += 1
        return self._words[STARTS]

    @property
    def place(self) -> int:
        """64 bits that identify the directory that first served the state; 0: not recorded yet."""
        return self._words[PLACE]

    def write_place(self, place: int) -> None:
        """Record the directory, unless one is recorded."""
        self._words[PLACE] = self.place or place

    @property
    def hosts(self) -> int:
        """Hosts in the hub's last answer, this one included; 1 before the first answer."""
        return max(1, self._words[HOSTS])

    def write_hosts(self, hosts: int) -> None:
        """Record how many hosts the hub counts. For the holder of the identity lock."""
        self._words[HOSTS] = hosts

    def generation(self, table: str) -> int:
        """Return the number of the current file of this table (one of GENERATIONS); 0: none yet."""
        return self._words[GENERATIONS[table]]

    def publish(self, table: str, generation: int) -> None:
        """Make this file the current one. For the holder of the setup lock."""
        self._words[GENERATIONS[table]] = generation

    def flush(self) -> None:
        """Wait until the disk has the published numbers: after a power cut a file that is not current is removed."""
        self._map.flush()

    def write_heartbeat(self, token: int, monotonic: float) -> None:
        """Write a heartbeat of the supervisor with this `token` (any 64 bits but 0); call it every second."""
        self._words[HEARTBEAT] = int(monotonic * 1000)
        fence()
        self._words[TOKEN] = token

    def read_heartbeat(self, monotonic: float) -> tuple[int, float]:
        """Return the token of the supervisor that serves (0: none yet) and the seconds since its last heartbeat."""
        token = self._words[TOKEN]
        fence()
        return token, monotonic - self._words[HEARTBEAT] / 1000

    def close(self) -> None:
        """Unmap and close, once."""
        if not self._map.closed:
            self._words.release()
            self._map.close()
            os.close(self._fd)
