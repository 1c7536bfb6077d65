"""The ids of stored answers whose usage is counted, in a memory map that all workers of a host share.

A service returns a stored answer for each request of it. An id is claimed by its first reader, which counts it; the
others find it claimed. The map is a hash table of fingerprints, 64 bits each, in sets of WAYS. A full set forgets its
oldest fingerprint: then an answer that is read again after some hundred thousand others would count again.
"""

import fcntl
import mmap
import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

SETS: Final = 1 << 15
WAYS: Final = 8
WORD: Final = 8
MAP_BYTES: Final = SETS * WAYS * WORD
"""2 MiB; only touched pages take memory and disk."""


class CountedIds:
    """The ids that were claimed. Ids of one owner are unique; owners do not share them."""

    def __init__(self, path: Path) -> None:
        """Open the map, and create it if it is missing. Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self._fd).st_size != MAP_BYTES:
                os.ftruncate(self._fd, MAP_BYTES)
            self._words = memoryview(mmap.mmap(self._fd, MAP_BYTES)).cast("Q")
        except BaseException:
            os.close(self._fd)
            raise

    def __contains__(self, key: tuple[bytes, ...]) -> bool:
        """Return whether an id is claimed; `key`: its owner and the id, or any parts that make it unique."""
        start, fingerprint = _locate(key)
        return fingerprint in self._words[start : start + WAYS].tolist()

    def claim(self, key: tuple[bytes, ...]) -> bool:
        """Claim an id; return True if it was not claimed before."""
        start, fingerprint = _locate(key)
        words = self._words
        # Two workers may read one answer at once. The lock is held for microseconds, and ends with its process.
        fcntl.lockf(self._fd, fcntl.LOCK_EX, WORD, start * WORD)
        try:
            ways = words[start : start + WAYS].tolist()
            if fingerprint in ways:
                return False
            words[start + 1 : start + WAYS] = memoryview(bytearray(words[start : start + WAYS - 1])).cast("Q")
            words[start] = fingerprint
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, WORD, start * WORD)


def _locate(key: tuple[bytes, ...]) -> tuple[int, int]:
    """Return the first word of the set of a key, and its fingerprint, which is never 0."""
    digest = blake2b(digest_size=16)
    for part in key:
        digest.update(b"%d:%b" % (len(part), part))
    number = int.from_bytes(digest.digest(), "big")
    return (number >> 64) % SETS * WAYS, number & (1 << 64) - 1 or 1
