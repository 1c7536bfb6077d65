"""The index of a table: from a key's hash to its row, by linear probing over at most 64 words.

A word is the upper 40 bits of the hash and 2 + the row's number. 0 is a slot never used; 1 is a tombstone, and probing
continues past it. The words lie side by side, away from the rows, so that a look-up touches one cache line and no row
but its own. Look-ups take no lock. Only the holder of the file's flock writes, and writes a word last, when its row is
ready.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b, blake2s
from struct import Struct
from typing import Protocol

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence

ROW_BITS = 24
ROW_MASK = (1 << ROW_BITS) - 1
HASH_PART = (1 << 64) - 1 - ROW_MASK
"""The bits of a word that are those of a key's hash."""
ROWS_MAX = ROW_MASK - 1
EMPTY, TOMBSTONE = 0, 1
read_hash = Struct("<Q").unpack
ROW_OFFSET = 2


class RowUnavailableError(Exception):
    """No row can be had now."""


class TableFullError(RowUnavailableError):
    """Every row is in use, or no slot near the key's is free."""


class TableBusyError(RowUnavailableError):
    """Another process is claiming a row at this moment; the next request may retry."""


class Hash(Protocol):
    """A BLAKE2 state of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Hash these bytes too."""

    def digest(self) -> bytes:
        """Return the hash."""


class Index:
    """The index of one open file."""

    def __init__(self, file: TableFile) -> None:
        self.words = file.words
        seed = file.seed
        if file.layout.parts == at.HEADS_APART:
            self._copy_seeded: Callable[[], Hash] = blake2s(digest_size=8, salt=seed[:8], person=seed[8:]).copy
        else:
            self._copy_seeded = blake2b(digest_size=8, key=seed).copy
        self.slots = file.layout.slots

    def hash(self, key: bytes) -> int:
        """Return 64 bits of seeded BLAKE2, equal in every process; never 0 in its upper 40 bits.

        Tables whose heads lie apart use BLAKE2s with the seed as its parameters, which hashes one block instead of two.
        """
        # A copy of a seeded state is quicker than a new one.
        state = self._copy_seeded()
        state.update(key)
        value: int
        (value,) = read_hash(state.digest())
        return value if value > ROW_MASK else value | 1 << ROW_BITS

    def find_row(self, key_hash: int, is_row: Callable[[int], bool]) -> int | None:
        """Find the number of the row with this hash, if `is_row` returns that the row has the key."""
        words = self.words
        start = at.HEADER_WORDS + key_hash % self.slots
        tag = key_hash >> ROW_BITS
        for slot in range(start, start + at.PROBES):
            word = words[slot]
            if word >> ROW_BITS == tag:
                if IS_WEAK:
                    fence()
                if is_row((word & ROW_MASK) - ROW_OFFSET):
                    return (word & ROW_MASK) - ROW_OFFSET
            if word == EMPTY:
                break
        return None

    def find_vacancy(self, key_hash: int) -> int | None:
        """Find the first free slot for this hash. For the flock's holder."""
        words = self.words
        start = at.HEADER_WORDS + key_hash % self.slots
        if words[start] <= TOMBSTONE:
            return start
        for slot in range(start + 1, start + at.PROBES):
            if words[slot] <= TOMBSTONE:
                return slot
        return None

    def find_slot_of_new(self, key_hash: int) -> int | None:
        """Find the first free slot for this hash; None if there is none, or a row may have the hash."""
        words = self.words
        start = at.HEADER_WORDS + key_hash % self.slots
        tag, vacancy = key_hash & HASH_PART, None
        for slot in range(start, start + at.PROBES):
            word = words[slot]
            if word <= TOMBSTONE:
                vacancy = vacancy or slot
                if word == EMPTY:
                    break
            elif word & HASH_PART == tag:
                return None
        return vacancy

    def publish(self, slot: int, key_hash: int, row: int) -> None:
        """Make the key lead to `row`. For the flock's holder."""
        if IS_WEAK:
            fence()
        self.words[slot] = key_hash & HASH_PART | row + ROW_OFFSET

    def remove(self, key_hash: int, row: int) -> None:
        """Make the key lead nowhere. For the flock's holder. Does nothing if the key led nowhere before."""
        words = self.words
        entry = key_hash & HASH_PART | row + ROW_OFFSET
        start = at.HEADER_WORDS + key_hash % self.slots
        for slot in range(start, start + at.PROBES):
            if words[slot] == entry:
                words[slot] = TOMBSTONE
                self._clear(slot)
                return

    def _clear(self, slot: int) -> None:
        """Empty the tombstones before an empty slot, as no probe needs to go past them."""
        words = self.words
        if words[slot + 1] == EMPTY:
            while slot >= at.HEADER_WORDS and words[slot] == TOMBSTONE:
                words[slot] = EMPTY
                slot -= 1

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Yield (slot, upper 40 bits of the hash, row's number) of all rows that keys lead to, in no order."""
        # In pieces: the list of a large index would be large.
        end = at.HEADER_WORDS + self.slots + at.PROBES
        for start in range(at.HEADER_WORDS, end, at.HEADER_WORDS):
            for slot, word in enumerate(self.words[start : min(start + at.HEADER_WORDS, end)].tolist(), start):
                if word > TOMBSTONE:
                    yield slot, word >> ROW_BITS, (word & ROW_MASK) - ROW_OFFSET
