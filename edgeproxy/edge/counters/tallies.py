"""Rows of totals: one per key, never reused within a file, so that a total never falls.

A key is a list of names (a customer, a meter, a route; a metric and its label values) joined by NUL.
"""

from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct
from time import monotonic, sleep

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.columns import is_counting
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.index import EMPTY, Index, TableBusyError, TableFullError
from edgeproxy.edge.counters.layout import HEADER_WORDS, HIGH, TALLY_HASH, TALLY_KEY_BYTES, WORD
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence

COUNTER, GAUGE, HISTOGRAM = 1, 2, 3

FLOCK_WAIT_SECONDS = 0.05
"""Seconds to wait for the flock: it is held for microseconds, unless its holder was stopped."""

START_WAIT_SECONDS = 2.0
"""The same for a process that starts. No request waits for it yet, and a busy host may stop a holder for long."""

DIGEST_BYTES = 16


def tally_key(*parts: str) -> bytes:
    """Return the key for these names. If they are too long together the longest is cut, and its digest appended."""
    key = "\0".join(parts).encode()
    if len(key) <= at.TALLY_KEY_BYTES:
        return key
    encoded = [part.encode() for part in parts]
    while (excess := sum(map(len, encoded)) + len(encoded) - 1 - at.TALLY_KEY_BYTES) > 0:
        longest = max(range(len(encoded)), key=lambda place: len(encoded[place]))
        whole = encoded[longest]
        prefix_bytes = max(0, len(whole) - excess - 1 - 2 * DIGEST_BYTES)
        short = whole[:prefix_bytes].decode(errors="ignore").encode()
        encoded[longest] = b"%b~%b" % (short, blake2b(whole, digest_size=DIGEST_BYTES).hexdigest().encode())
    return b"\0".join(encoded)


def names(key: bytes) -> tuple[str, ...]:
    """Return the names of a key."""
    return tuple(part.decode() for part in key.split(b"\0"))


class TallyTable:
    """A table of totals from the view of one process. `column` is the one that it adds to, None for a reader."""

    def __init__(self, file: TableFile, column: int | None = None) -> None:
        self.file = file
        self.name = file.layout.kind
        self.words = file.words
        self.layout = file.layout
        self.column = column
        self.index = Index(file)
        self._bytes = file.bytes
        self._rows, self._first = file.layout.rows, file.layout.first_row
        self._stride = file.layout.row_words
        self._tallies_at = file.layout.tallies
        self._mark_at = mark_at = self._tallies_at - 1
        self._near_bytes = (mark_at - at.TALLY_KEY) * at.WORD
        """Bytes of a key in the first part of its row."""
        self._far = self._first + file.layout.far
        rest = (self._stride - mark_at) * at.WORD
        self._pack_row = Struct(f"@{at.WORD}xQ{self._near_bytes}s{rest}x").pack_into
        self._own_at = self._tallies_at + (column or 0) * file.layout.width
        self._living: set[int] = set()
        self.patience = FLOCK_WAIT_SECONDS
        """Seconds that a claim waits for the flock."""

    def own(self, key: bytes, kind: int) -> int:
        """Return the first word of this process's column in the key's row, which is claimed if there is none.

        The words hold all counts that any process has made there before. Raises TableFullError, or TableBusyError if
        the flock could not be acquired within 50 ms.
        """
        if self.column is None:
            raise ValueError("a process without a column reads, and adds to nothing")
        key_hash = self.index.hash(key)
        slot = HEADER_WORDS + key_hash % self.index.slots
        number = None
        if self.words[slot] != EMPTY:  # A new key mostly finds that.
            number = self._find(key_hash, key)
        if number is None:
            number = self._claim(slot, key_hash, key, kind)
        return self._first + number * self._stride + self._own_at

    def columns_of(self, own: int) -> slice:
        """Return the slice of the words of all columns beside `own`, this process's word from `own()`."""
        if self.column is None:
            raise ValueError("a process without a column has no words of its own")
        width = self.layout.width
        first = own - self.column * width
        return slice(first, first + self.layout.columns * width, width)

    def is_living(self, column: int) -> bool:
        """Return whether a running worker holds this column, this process or another.

        A living one is remembered until `forget_living`; for a dead one the kernel is asked each time (0.5 µs), so that
        a new holder of its column counts from its first word on.
        """
        if column in self._living or column == self.column:
            return True
        living = is_counting(self.file, column)
        if living:
            self._living.add(column)
        return living

    def forget_living(self) -> None:
        """Forget which columns have a living worker, as workers may have gone. Call it twice a second."""
        self._living.clear()

    def _row(self, number: int) -> int:
        return self._first + number * self._stride

    def _key(self, number: int) -> bytes:
        row = self._row(number)
        start = (row + at.TALLY_KEY) * at.WORD
        length = self.words[row + at.TALLY_STATE] & 0xFF
        near = self._near_bytes
        if length <= near:
            return bytes(self._bytes[start : start + length])
        return bytes(self._bytes[start : start + near]) + bytes(self._rest_of_key(number, length - near))

    def _rest_of_key(self, number: int, length: int) -> memoryview:
        """Return the place of this many bytes in the second part of a row."""
        start = (self._far + number * at.KEY_REST_WORDS) * at.WORD
        return self._bytes[start : start + length]

    def _has(self, number: int, key: bytes) -> bool:
        return self._key(number) == key

    def _find(self, key_hash: int, key: bytes) -> int | None:
        return self.index.find_row(key_hash, lambda number: self._has(number, key))

    def _claim(self, first: int, key_hash: int, key: bytes, kind: int) -> int:
        """Claim a row for this key, whose `first` slot in the index is this, unless another process has just done so.
        Return its number.
        """
        words, index = self.words, self.index
        length, near = len(key), self._near_bytes
        if length > TALLY_KEY_BYTES:
            raise ValueError(f"the key is {length} bytes long, and {TALLY_KEY_BYTES} is the most")
        if words[HIGH] >= self._rows:
            raise TableFullError(self.name)
        if not self.file.lock():
            self._wait_for_lock()
        try:
            slot: int | None = first if words[first] == EMPTY else index.find_slot_of_new(key_hash)
            if slot is None:
                claimed = self._find(key_hash, key)
                if claimed is not None:
                    return claimed
                slot = index.find_vacancy(key_hash)
            number = words[HIGH]
            if slot is None or number >= self._rows:
                raise TableFullError(self.name)
            # If this process is killed from here on, it leaves a row that no key leads to: nothing that needs repair.
            words[HIGH] = number + 1
            row = self._first + number * self._stride
            # This writes zeros into all other words: after a power cut a row may have content though it was not handed
            # out, as far as the disk knew.
            self._pack_row(self._bytes, row * WORD, kind << 8 | length, key)  # As much of the key as has room.
            if length > near:
                self._rest_of_key(number, length - near)[:] = key[near:]
            if IS_WEAK:
                fence()
            words[row + TALLY_HASH] = key_hash
            index.publish(slot, key_hash, number)
            return number
        finally:
            self.file.unlock()

    def _wait_for_lock(self) -> None:
        """Wait until the flock is held. Raises TableBusyError after the seconds of `patience`."""
        deadline = monotonic() + self.patience
        while not self.file.lock():
            if monotonic() >= deadline:
                raise TableBusyError(self.name)
            sleep(0.0002)

    @property
    def rows_in_use(self) -> int:
        """Rows handed out: `edge_table_rows{table}`."""
        return self.words[at.HIGH]

    def totals(self, live: frozenset[int] | None = None) -> Iterator[tuple[int, bytes, list[int]]]:
        """Yield (kind, key, sums over all columns, word by word) of every row. Gauges are summed over columns `live`
        only.

        Without `live` gauges are left out: the open things of a dead process are not a total.
        """
        width, columns = self.layout.width, self.layout.columns
        for number in range(self.words[at.HIGH]):
            row = self._row(number)
            kind = self.words[row + at.TALLY_STATE] >> 8
            # A row without a hash is being claimed, or was being claimed by a killed process.
            if not self.words[row + at.TALLY_HASH] or (kind == GAUGE and live is None):
                continue
            if IS_WEAK:
                fence()
            tallies = self.words[row + self._tallies_at : row + self._tallies_at + columns * width].tolist()
            of = sorted(live or ()) if kind == GAUGE else range(columns)
            yield kind, self._key(number), [sum(tallies[word + c * width] for c in of) for word in range(width)]

    def list_unsealed(self) -> Iterator[tuple[int, bytes, int, int]]:
        """Yield (row number, key, total, mark) of every row whose total differs from its mark. For tables of a word a
        column.

        Takes about 0.4 µs for each existing row.
        """
        words, first, stride = self.words, self._first + self._mark_at, self._stride
        span = 1 + self.layout.columns
        for number in range(words[at.HIGH]):
            row = first + number * stride
            mark, *tallies = words[row : row + span].tolist()
            total = sum(tallies)
            # A row without a hash is being claimed, or was being claimed by a killed process: its words do not count
            # yet.
            if total != mark and words[row - self._mark_at + at.TALLY_HASH]:
                if IS_WEAK:
                    fence()
                yield number, self._key(number), total, mark

    def marks(self) -> Iterator[tuple[bytes, int]]:
        """Yield (key, mark) of every row."""
        for number in range(self.words[at.HIGH]):
            row = self._row(number)
            if self.words[row + at.TALLY_HASH]:
                if IS_WEAK:
                    fence()
                yield self._key(number), self.words[row + self._mark_at]

    def mark(self, number: int, total: int) -> None:
        """Record the sealed part of this row; it never falls. For the holder of the identity lock."""
        place = self._row(number) + self._mark_at
        if total > self.words[place]:
            self.words[place] = total

    def number(self, key: bytes, likely: int | None = None) -> int | None:
        """Find the number of the key's row; `likely` is tried first.

        Otherwise it is the row that counts the key now: after a power cut there may be an earlier one that the index
        has lost.
        """
        if (
            likely is not None
            and likely < self.words[at.HIGH]
            and self.words[self._row(likely) + at.TALLY_HASH]
            and self._has(likely, key)
        ):
            return likely
        return self._find(self.index.hash(key), key)

    def total(self, number: int) -> int:
        """Return the count of all columns in a row of a table of a word a column."""
        start = self._row(number) + self._tallies_at
        return sum(self.words[start : start + self.layout.columns].tolist())

    def restore_total(self, number: int, total: int) -> None:
        """Add the missing part of an earlier total to this process's column of a row. For tables of a word a column."""
        if self.column is None:
            raise ValueError("a process without a column adds to nothing")
        self.words[self._row(number) + self._tallies_at + self.column] += max(0, total - self.total(number))

    def recover(self) -> None:
        """Hand out no row again that has a key: after a power cut it may be above HIGH. Call it before others use the
        table.

        A row that has only the first part of its key counts for no key.
        """
        words, near = self.words, self._near_bytes
        for number in range(self.layout.rows):
            row = self._row(number)
            key_hash = words[row + at.TALLY_HASH]
            if key_hash:
                words[at.HIGH] = max(words[at.HIGH], number + 1)
                if words[row + at.TALLY_STATE] & 0xFF > near and self.index.hash(self._key(number)) != key_hash:
                    words[row + at.TALLY_HASH] = 0

    def clear_gauges(self) -> None:
        """Clear the gauges of this process's column at its start, whatever its predecessor had open."""
        if self.column is None:
            raise ValueError("a process without a column has no gauges")
        width = self.layout.width
        for number in range(self.words[at.HIGH]):
            row = self._row(number)
            if self.words[row + at.TALLY_STATE] >> 8 == GAUGE:
                self.words[row + self._tallies_at + self.column * width] = 0
