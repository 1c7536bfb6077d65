"""Rows of limits: one per key, found by any process without a lock, claimed under the file's flock.

A row's generation is even while it is live and odd while it is closing (see reclaim.py). A process that remembers a
row's place remembers the generation with it, and looks the key up again when the two differ: the row may have become
another key's. The row's sync version moves whenever readers must read the row again.
"""

import secrets
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from time import monotonic, sleep
from typing import Protocol
from weakref import WeakValueDictionary

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import counts, milliseconds, pack
from edgeproxy.edge.counters.columns import is_counting
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.heads import Heads, Spans, read_heads
from edgeproxy.edge.counters.hub_column import HubColumn
from edgeproxy.edge.counters.index import (
    EMPTY,
    HASH_PART,
    ROW_OFFSET,
    Index,
    RowUnavailableError,
    TableBusyError,
    TableFullError,
)
from edgeproxy.edge.counters.layout import (
    ALLOCATED,
    CHANGES,
    FOREIGN_COLUMN,
    FREE,
    FREE_GAUGES,
    HEADER_WORDS,
    HIGH,
    IN_USE,
    KEY_BYTES,
    PENDING,
    ROW_BORN,
    ROW_GENERATION,
    ROW_HASH,
    ROW_STATE,
    ROW_SYNC,
    WORD,
)
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import (
    DIGESTED,
    HAS_FOREIGN,
    HAS_GAUGES,
    HAS_PERIODS,
    KEY_STATE,
    RowKey,
)

__all__ = ["LimitTable", "RowUnavailableError", "TableBusyError", "TableFullError"]

FLOCK_WAIT_SECONDS = 0.02
"""Seconds to wait for the flock. It is held for microseconds, unless the machine is busy."""
FLOCK_RETRY_SECONDS = 1.0
"""After a wait for the flock in vain, seconds until the next wait, as its holder may hang."""


LOOPED_WORKERS_MAX = 7
"""With up to so many workers, each reads its siblings' words one by one. For more, one call sums all adjacent words."""
VERSIONS_AHEAD = 256
"""Rows beyond the last one whose versions get their place with it, since new rows mostly follow each other."""
CHUNKS_MAX = 4
"""Chunks of rows whose space a supervisor allocates in one turn."""
GAUGES_BLOCK = 256
"""Adjacent rows that are set aside for things in use, so that whole pages of rings are never touched: at most those
whose space is allocated at a time.
"""


def create_row_packers(layout: at.Layout) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return two functions that write words of a row: state, width, moment of birth and the key's words in the row,
    from the word ROW_STATE on; and generation, sync version and these, from the row's begin on. Both write zeros into
    all other words of the row's first part from there on.
    """
    rest = (layout.row_words - at.ROW_KEY - layout.key_words) * at.WORD
    content = f"QQ{2 * at.WORD}xQ{layout.key_words * at.WORD}s{rest}x"
    return Struct(f"@{content}").pack_into, Struct(f"@{at.WORD}xQQ{content}").pack_into


Claim = tuple[int, int, int, bytes]
"""A new key: its hash, the state of its row, the width of its cells, and the key as stored."""
RowLookup = tuple[int, int, bool]
"""The first word of a row, its generation, and whether it was claimed just now."""


class Reader(Protocol):
    """An object that remembers which columns of a row it must read."""

    def invalidate(self) -> None:
        """Read other columns than before from now on."""

    def recover_clock(self, now: float) -> None:
        """Continue at edge time `now`, as the clock was set back."""


class LimitTable:
    """A table of limits from the view of one process. `column` is the one that it counts in, None for a reader."""

    def __init__(self, file: TableFile, column: int | None = None) -> None:
        self.file = file
        self.name = file.layout.kind
        self.words = file.words
        self.layout = layout = file.layout
        self.column = column
        self.hub = None if layout.hub is None else HubColumn(file.words, layout, layout.hub)
        """The counts of other hosts; None if limits are not shared."""
        self.index = Index(file)
        self._bytes = file.bytes
        self._rows, self._first, self._stride = layout.rows, layout.first_row, layout.row_words
        self.first_row = layout.first_row
        """The first word of the first row."""
        self._pack_row, self._pack_new_row = create_row_packers(layout)
        self._no_counts = memoryview(bytes(layout.ring * WORD)).cast("Q")
        self._separates_rings, self._separates_heads = layout.parts >= at.APART, layout.parts == at.HEADS_APART
        self.readers: WeakValueDictionary[bytes, Reader] = WeakValueDictionary()
        """The objects that are told of other columns and of a clock set back, by the key of a row or another name."""
        self.versions: list[int] = []
        """For each row by number, how often an object of this process has taken over counting from another one. An
        object with another number than this reads the process's own counts again.
        """
        self.zero = at.ZERO
        """A word that is always 0."""
        self._set_offsets()
        self.owner = secrets.randbits(32) | 1 << 31
        """Gauges use this number to tell this process's words from the words of its predecessors in the column."""
        self.gauge_owner = self.owner << at.OWNER_SHIFT
        """The part of this process's gauges above their count."""
        self.reads_runs = layout.columns // 2 > LOOPED_WORKERS_MAX
        """True if readers sum adjacent words by one call, and may have headroom. All processes agree on it."""
        self._alarms = 0
        self.version = -1
        self._waits_from = 0.0
        self.refresh_columns()

    def _set_offsets(self) -> None:
        layout, column = self.layout, self.column or 0
        self._near_bytes, self._first_rest = layout.key_words * WORD, layout.first_rest
        """Bytes of a key in its row, and the first word of the rests of longer keys."""
        self.first_rings, self.rings_words = layout.first_rings, layout.rings_words
        """The first word of the first row's rings, and the words from there to those of the next row."""
        self.own_at = layout.ring_at(column)
        """The offset of this process's own ring from the rings of a row."""
        self.hub_at = 0 if layout.hub is None else layout.ring_at(layout.hub)
        self._near_words = layout.ring * (layout.near if layout.parts else layout.columns)
        """The words of the rings that lie side by side, from the first column's on."""
        self._first_foreign, self._foreign_words = layout.foreign
        self.head_at = layout.head(column)
        """The offset in a row of this process's own head."""
        self.alarm_at = layout.alarm
        """The offset in a row of its alarm."""

    # ---- looking rows up

    def make_key(self, key: bytes) -> RowKey:
        """Return the look-up key; keys above 64 bytes are stored, and hashed, as a 128-bit digest."""
        state = len(key)
        if state > at.KEY_BYTES:
            key = blake2b(key, digest_size=16).digest()
            state = len(key) | DIGESTED
        return RowKey(self.index.hash(key), state, key)

    def make_key_of(self, other: "LimitTable", row: int) -> RowKey:
        """Return the key of another table's row for a look-up in this one: each file hashes with its own seed."""
        stored = other.stored_key(row)
        state = other.words[row + at.ROW_STATE] & KEY_STATE
        return RowKey(self.index.hash(stored), state, stored)

    def stored_key(self, row: int) -> bytes:
        """Return the stored form of a row's key: the key itself, or its digest, which is equal in every file."""
        return self._read_key(row, self.words[row + at.ROW_STATE] & KEY_STATE & ~DIGESTED)

    def _read_key(self, row: int, length: int) -> bytes:
        """Return this many bytes of a row's key."""
        start, near = (row + at.ROW_KEY) * WORD, self._near_bytes
        if length <= near:
            return self._bytes[start : start + length].tobytes()
        return self._bytes[start : start + near].tobytes() + self._rest_of_key(row, length - near).tobytes()

    def _rest_of_key(self, row: int, length: int) -> memoryview:
        """Return the place of this many bytes in the second part of a row."""
        start = (self._first_rest + (row - self._first) // self._stride * at.REST_WORDS) * WORD
        return self._bytes[start : start + length]

    def peek(self, key: RowKey) -> int | None:
        """Find the first word of the key's row, without claiming one."""
        if self.words[HEADER_WORDS + key[0] % self.index.slots] == EMPTY:
            return None  # As for most new keys.
        number = self.index.find_row(key.hash, lambda number: self._has(number, key))
        return None if number is None else self._first + number * self._stride

    def _has(self, number: int, key: RowKey) -> bool:
        return self._has_key(self._first + number * self._stride, key)

    def _has_key(self, row: int, key: RowKey) -> bool:
        has_state = self.words[row + at.ROW_STATE] & KEY_STATE == key.state
        return has_state and self._read_key(row, len(key.stored)) == key.stored

    def find(self, key: RowKey, width: int, now: float, flags: int = 0) -> RowLookup:
        """Return the first word of the key's row, its generation, which is even, and whether it was claimed now.

        `width` is the microseconds of the key's cells, `now` edge time, `flags` the state of a new row. Raises
        TableFullError, or TableBusyError if another process holds the flock; the next request may try again then.
        """
        words = self.words
        changes = words[CHANGES]
        row = self.peek(key)
        if row is not None:
            if IS_WEAK:
                fence()
            generation = words[row + ROW_GENERATION]
            if IS_WEAK:
                fence()
            # Once more, because the row may have become another key's before its generation was read.
            if not generation & 1 and self._has_key(row, key):
                return row, generation, False
        elif words[IN_USE] >= self.layout.rows:
            raise TableFullError(self.name)
        if not (self.file.lock() or self._wait_for_lock()):
            raise TableBusyError(self.name)
        try:
            if row is not None or words[CHANGES] != changes:
                row = self.peek(key)
            if row is None:
                slot = self.index.find_vacancy(key.hash)
                if slot is None:
                    raise TableFullError(self.name)
                return self._claim({slot: (key.hash, key.state | flags, width, key.stored)}, now)[0]
            if words[row + ROW_GENERATION] & 1:
                # Closing, and needed again: both ways out of that are taken under this lock only.
                words[row + ROW_GENERATION] += 1
            return row, words[row + ROW_GENERATION], False
        finally:
            self.file.unlock()

    def find_all(self, keys: Sequence[tuple[bytes, int, int]], now: float, end: bytes = b"") -> list[RowLookup]:
        """Return the result of `find` for each of these keys, with its `width` and its `flags`. All keys end with
        `end`.

        If all keys are new, as those of a new customer, the flock is acquired once for them. Raises the errors of
        `find`.
        """
        words, index = self.words, self.index
        changes, slots = words[CHANGES], index.slots
        claims: dict[int, Claim] = {}
        for begin, width, flags in keys:
            key = begin + end
            length = len(key)
            if length > KEY_BYTES:
                break
            key_hash = index.hash(key)
            slot = HEADER_WORDS + key_hash % slots
            if words[slot] != EMPTY:
                slot = index.find_slot_of_new(key_hash) or 0
            if not slot or slot in claims:
                break
            claims[slot] = key_hash, length | flags, width, key
        else:
            if claims and self.file.lock():
                try:
                    if words[CHANGES] == changes:
                        return self._claim(claims, now)
                finally:
                    self.file.unlock()
        return [self.find(self.make_key(begin + end), width, now, flags) for begin, width, flags in keys]

    def _wait_for_lock(self) -> bool:
        """Wait for the flock. Without a row each worker would count alone, so a moment's wait is the better choice."""
        began = monotonic()
        if began < self._waits_from:
            return False
        while monotonic() < began + FLOCK_WAIT_SECONDS:
            sleep(0.0001)
            if self.file.lock():
                return True
        self._waits_from = began + FLOCK_RETRY_SECONDS
        return False

    def _claim(self, claims: dict[int, Claim], now: float) -> list[RowLookup]:
        """Claim a row for each of these keys, by its slot in the index. For the flock's holder."""
        words, first, stride = self.words, self._first, self._stride
        born = milliseconds(now)
        claimed: list[RowLookup] = []
        words[PENDING] = 1
        for slot, (key_hash, state, width, key) in claims.items():
            freed = FREE_GAUGES if state & HAS_GAUGES else FREE
            number = words[freed] - 1
            if number < 0:
                freed, number = self._choose_row(state)
                if number < 0:
                    break
            row, generation = first + number * stride, 2
            # Zeros are written into the words of the last key, too: its cells had another width, and could pass for
            # some of this one's. After a power cut a row above HIGH may have content as well; tables that outlive it
            # have empty rings. No key leads here yet.
            if freed and words[row + ROW_GENERATION]:
                generation = self._fill_freed(freed, row, state, width, born, key)
            else:
                if freed:
                    words[freed] = words[row + ROW_BORN]
                else:
                    words[HIGH] = number + 1
                # No process remembers a row that was never used.
                self._pack_new_row(self._bytes, row * WORD, 2, 1, state, width, born, key)
                if len(key) > self._near_bytes:
                    self._write_rest(row, key)
            if IS_WEAK:
                fence()
            words[row + ROW_HASH] = key_hash
            if IS_WEAK:
                fence()
            words[slot] = key_hash & HASH_PART | number + ROW_OFFSET  # As `Index.publish`, without its call.
            claimed.append((row, generation, True))
        words[IN_USE] += len(claimed)
        words[CHANGES] += 1  # As `record_change`.
        words[PENDING] = 0
        if number < 0:
            raise TableFullError(self.name)  # The first keys have their rows, and are found from now on.
        return claimed

    def _choose_row(self, state: int) -> tuple[int, int]:
        """Return the word of the header with the list that a new row of this state comes from, and the row's number, if
        the list of its kind is empty. The word is 0 if the row was never handed out, and the number -1 if none is left.
        Within a change.
        """
        words, high = self.words, self.words[HIGH]
        if state & HAS_GAUGES:
            if self._separates_rings and self._set_block_aside():
                return FREE_GAUGES, words[FREE_GAUGES] - 1
            if words[FREE]:
                return FREE, words[FREE] - 1
        if high < self._rows and (high < words[ALLOCATED] or self.file.allocate(high + 1)):
            return 0, high
        return FREE_GAUGES, words[FREE_GAUGES] - 1  # The last rows are for either kind.

    def _set_block_aside(self) -> bool:
        """Set the next rows aside for things in use; return False if all rows were handed out. Within a change."""
        words, high = self.words, self.words[HIGH]
        end = min(high + min(GAUGES_BLOCK, self.layout.chunk), self._rows)
        if not self.file.allocate(end):
            end = min(end, words[ALLOCATED])
        if end <= high:
            return False
        row, past = self.row(high), self.row(end)
        links = array("Q", [*range(high + 2, end + 1), 0])
        words[row + ROW_BORN : past : self._stride] = memoryview(links)
        words[row + ROW_STATE : past : self._stride] = memoryview(array("Q", [HAS_GAUGES]) * (end - high))
        words[HIGH] = end
        words[FREE_GAUGES] = high + 1
        return True

    def _fill_freed(self, freed: int, row: int, state: int, width: int, born: int, key: bytes) -> int:
        """Take the first row of the list `freed`, a word of the header, and write its content. Return its
        generation.
        """
        words = self.words
        words[freed] = words[row + ROW_BORN]  # A freed row holds the number of the next one in this word.
        self.refresh_columns()
        if freed == FREE:  # The rings of the others are empty.
            self._clear_rings(row)
        if self._separates_heads:
            self._clear_far_heads(row)
        generation = (words[row + ROW_GENERATION] | 1) + 1
        self._pack_row(self._bytes, (row + ROW_STATE) * WORD, state, width, born, key)
        if len(key) > self._near_bytes:
            self._write_rest(row, key)
        if IS_WEAK:
            fence()  # A process that reads the generation from here on does not find the last key any more.
        words[row + ROW_GENERATION] = generation
        if IS_WEAK:
            fence()
        words[row + ROW_SYNC] += 1
        return generation

    def _write_rest(self, row: int, key: bytes) -> None:
        """Write the rest of a long key."""
        rest = key[self._near_bytes :]
        self._rest_of_key(row, len(rest))[:] = rest

    def _clear_rings(self, row: int) -> None:
        """Clear the rings of a row before another key gets it, as far as they were ever written. Those in its first
        part are cleared with its key.
        """
        words, ring, rings = self.words, self.layout.ring, self.rings_of(row)
        if words[row + ROW_STATE] & HAS_FOREIGN:
            foreign = self.foreign_of(row)
            words[foreign : foreign + ring] = self._no_counts
        for column in self.used_columns if self._separates_rings else self.far_columns:
            begin = rings + self.layout.ring_at(column)
            words[begin : begin + ring] = self._no_counts

    def _clear_far_heads(self, row: int) -> None:
        """Clear the heads of a row that lie apart before another key gets it, as far as they were ever written."""
        foreign = (FOREIGN_COLUMN,) if self.words[row + ROW_STATE] & HAS_FOREIGN else ()
        for column in (*foreign, *self.far_columns):
            head = row + self.layout.head(column)
            self.words[head : head + self.layout.width] = self._no_counts[: self.layout.width]

    def record_change(self) -> None:
        """Record that a change is complete.

        In this order: if the process is killed in between, the next holder of the flock counts it again.
        """
        self.words[at.CHANGES] += 1
        self.words[at.PENDING] = 0

    def write_foreign(self, row: int, cells: dict[int, int], head: Sequence[int] = ()) -> None:
        """Write the foreign counts (cell -> total) into a row, and make its readers read it again.

        `head` is the first words of the foreign column's head.
        """
        # First the mark: who gets the row after its key clears the ring only if there is one.
        self.words[row + at.ROW_STATE] |= HAS_FOREIGN
        for cell, count in cells.items():
            self.words[self.foreign_of(row) + cell % self.layout.ring] = pack(cell, count)
        for place, word in enumerate(head, row + self.layout.head(FOREIGN_COLUMN)):
            self.words[place] = word
        # Last, because it makes workers look.
        self.notify_readers(row)

    def in_use(self, row: int, *, without: int | None = None) -> int:
        """Return the sum of a row's gauges, of running processes and of other hosts; `without` a column."""
        words, layout = self.words, self.layout
        self.refresh_columns()
        total = 0
        if words[row + ROW_STATE] & HAS_FOREIGN or not self._separates_heads:
            total = words[row + layout.head(FOREIGN_COLUMN) + at.GAUGE] & at.COUNT_MASK
        for column, place in self._gauges_at:
            word = words[row + place]
            living = word & at.COUNT_MASK and self.is_living(column) and word >> at.OWNER_SHIFT == self.owner_of(column)
            if living and column != without:
                total += word & at.COUNT_MASK
        return total

    def retained_until(self, row: int) -> float:
        """Return the edge time until which the row is retained whatever its cells hold; 0 if they alone decide."""
        words, width = self.words, self.layout.width
        self.refresh_columns()
        spans = self.list_head_spans(row)
        return max([max(words[start + at.UNTIL : end : width].tolist()) for start, end in spans]) / 1000

    def number_version(self, row: int) -> int:
        """Return the number of a row, whose place among the `versions` exists from now on."""
        number = (row - self._first) // self._stride
        if number >= len(self.versions):
            self.versions += [0] * (number + VERSIONS_AHEAD - len(self.versions))
        return number

    # ---- reading a row, whose first word is `row`

    def has(self, row: int, generation: int) -> bool:
        """Return whether the row still belongs to the key that it had at this generation."""
        # A limit that has no row yet has the place 0, the table's header.
        return row > 0 and self.words[row + at.ROW_GENERATION] == generation

    def generation(self, row: int) -> int:
        """Return the row's generation: it changes with the row's key, and is odd while the row is about to be freed."""
        return self.words[row + at.ROW_GENERATION]

    def sync_version(self, row: int) -> int:
        """Return the row's sync version: it changes whenever readers must read the row again."""
        return self.words[row + at.ROW_SYNC]

    def notify_readers(self, row: int) -> None:
        """Make all readers of the row read it again, after a write."""
        fence()
        self.words[row + at.ROW_SYNC] += 1

    def cell_width(self, row: int) -> int:
        """Return the microseconds of a cell of the row."""
        return self.words[row + at.ROW_WIDTH]

    def born(self, row: int) -> int:
        """Return when the key got the row, in milliseconds of edge time."""
        return self.words[row + at.ROW_BORN]

    def counts_gauges(self, row: int) -> bool:
        """Return whether the row counts things in use now (edge/limits/slots.py)."""
        return bool(self.words[row + at.ROW_STATE] & HAS_GAUGES)

    def counts_periods(self, row: int) -> bool:
        """Return whether the row counts in calendar periods (edge/limits/quota.py)."""
        return bool(self.words[row + at.ROW_STATE] & HAS_PERIODS)

    def acknowledged(self, row: int) -> int:
        """Return how much of this host's count in the row the hub has acknowledged."""
        return self.words[row + at.ROW_ACKNOWLEDGED]

    def acknowledge(self, row: int, counted: int) -> None:
        """Record how much the hub has acknowledged. For the supervisor that reports to the hub."""
        self.words[row + at.ROW_ACKNOWLEDGED] = counted

    def heads(self, row: int) -> Heads:
        """Return the heads of all columns, in the order of `read_heads`: of used ones alone, if heads lie apart."""
        self.refresh_columns()
        return Heads(self.read_heads(row), self.layout.width, self.hub is not None)

    def read_heads(self, row: int) -> list[int]:
        """Read the heads of a row, the foreign column's first, then those of column 0 and of further ones."""
        spans, width = self.list_head_spans(row), self.layout.width
        foreign = len(spans) < len(self._head_spans)
        return [0] * width * foreign + read_heads(self.words, spans, width)

    def list_head_spans(self, row: int) -> Spans:
        """Return the pieces of a row that hold heads, the foreign column's first: without that one if it lies apart and
        nobody has written it, since the page of such a head takes no memory until it is read.
        """
        spans = self._head_spans
        if self._separates_heads and not self.words[row + ROW_STATE] & HAS_FOREIGN:
            spans = spans[1:]
        return [(row + start, row + end) for start, end in spans]

    def counts(self, row: int, cell: int) -> dict[int, int]:
        """Return the counts of all columns in each cell that counts at `cell`, including the foreign and the hub's
        column.
        """
        return counts(self.read_rings(row), cell, self.layout.cells)

    def own_counts(self, row: int, cell: int) -> dict[int, int]:
        """Return this host's counts in each cell that counts at `cell`: `counts` without the hub's column."""
        return counts(self.read_rings(row, with_hub=False), cell, self.layout.cells)

    def read_rings(self, row: int, *, with_hub: bool = True) -> list[int]:
        """Read the words of all rings that were ever written. A row of things in use has none that count.

        Pages of rings that nobody has used take no memory until they are read.
        """
        words, layout = self.words, self.layout
        state = words[row + ROW_STATE]
        if state & HAS_GAUGES:
            return [0]
        rings = self.rings_of(row)
        if words[at.COLUMNS_VERSION] != self.version:
            self.refresh_columns()
        end = self._near_words if with_hub or layout.hub is None else self.hub_at
        read: list[int] = words[rings : rings + end].tolist()
        begin, end = self.far_span
        read += words[rings + begin : rings + end].tolist()
        if state & HAS_FOREIGN or not layout.parts:
            foreign = self.foreign_of(row)
            read += words[foreign : foreign + layout.ring].tolist()
        return read

    # ---- for the maintenance of the table

    def row(self, number: int) -> int:
        """Return the first word of the row of this number."""
        return self._first + number * self._stride

    def rings_of(self, row: int) -> int:
        """Return the first word of a row's rings."""
        return self.first_rings + (row - self._first) // self._stride * self.rings_words

    def foreign_of(self, row: int) -> int:
        """Return the first word of a row's foreign ring."""
        return self._first_foreign + (row - self._first) // self._stride * self._foreign_words

    @property
    def high(self) -> int:
        """Rows with a lower number were handed out or set aside at some time. No key has ever had a row above."""
        return self.words[at.HIGH]

    @property
    def rows_in_use(self) -> int:
        """Rows that keys have now: `edge_table_rows{table}`."""
        return self.words[at.IN_USE]

    def rows(self) -> Iterator[int]:
        """Yield the first words of live rows."""
        for number in range(self.high):
            row = self.row(number)
            if self.words[row + at.ROW_HASH]:
                if IS_WEAK:
                    fence()
                yield row

    def grow_in_time(self) -> None:
        """Allocate the space of the next rows before a worker needs it. For the supervisor that maintains the table."""
        words, chunk = self.words, self.layout.chunk
        allocated = words[at.ALLOCATED]
        ahead = max(chunk, words[at.HIGH] // 4)
        if not (0 < allocated < self.layout.rows and words[at.HIGH] + ahead > allocated and self.file.lock()):
            return
        try:
            for _ in range(CHUNKS_MAX):
                if words[at.HIGH] + ahead <= words[at.ALLOCATED] or not self.file.grow():
                    break
        finally:
            self.file.unlock()

    def free(self, number: int) -> None:
        """Take the row from its key. For the flock's holder, if the row is closing and unused."""
        words = self.words
        row = self.row(number)
        words[at.PENDING] = 1
        self.index.remove(words[row + at.ROW_HASH], number)
        words[row + at.ROW_HASH] = 0
        words[row + at.ROW_SYNC] += 1
        freed = self.free_list_of(row)
        words[row + at.ROW_BORN] = words[freed]
        words[freed] = number + 1
        words[at.IN_USE] -= 1
        self.record_change()

    def free_list_of(self, row: int) -> int:
        """Return the word of the header that leads to free rows like this one."""
        return FREE_GAUGES if self._separates_rings and self.words[row + ROW_STATE] & HAS_GAUGES else FREE

    def recover_clock(self, now: float) -> None:
        """Make this process's readers continue at edge time `now`, as the clock was set back."""
        for reader in list(self.readers.values()):
            reader.recover_clock(now)

    # ---- columns

    def refresh_columns(self) -> bool:
        """Return whether other columns than before must be read; inform the readers, and the worker that waits for
        it.
        """
        words = self.words
        version = words[at.COLUMNS_VERSION]
        if version == self.version:
            return False
        if IS_WEAK:
            fence()
        used, active = self._columns(at.USED_COLUMNS), self.active_columns()
        layout = self.layout
        own = set() if self.column is None else {self.column}
        places = {column: layout.ring_at(column) for column in sorted(used | active | own)}
        self._set_spans(places)
        self.siblings = tuple([column for column in sorted(active) if column != self.column])
        self.siblings_at = tuple([places[column] for column in self.siblings])
        """The places, from a row's rings on, of rings whose words may change between two decisions."""
        self._set_head_spans(max(places, default=-1))
        self.active = len(active - {layout.hub})
        self.may_use_headroom = layout.hub is None and self.active <= layout.columns // 2
        """True if this worker may decide by headroom (edge/limits/headroom.py): not if other hosts count too, or the
        workers of another supervisor, which may be of a version that knows no alarm.
        """
        for reader in tuple(self.readers.values()):
            reader.invalidate()
        self.version = version
        if self.column is not None:
            words[at.SEEN + self.column] = self.owner << at.OWNER_SHIFT | version
        return True

    def _set_spans(self, places: dict[int, int]) -> None:
        """Set which used columns are read, given the place of each one's ring."""
        ring = self.layout.ring
        self.used_columns = tuple(places)
        self.far_columns = tuple([column for column in places if self.layout.is_far(column)])
        """The used columns whose rings do not lie beside the first one."""
        near = [place for column, place in places.items() if column not in self.far_columns]
        self.span = max(near, default=0) + ring
        """Words from the first ring to the end of the last used one beside it."""
        far = [places[column] for column in self.far_columns]
        self.far_span = (min(far), max(far) + ring) if far else (0, 0)
        """The begin of the first of their rings, and the end of the last, from a row's rings on."""

    def _set_head_spans(self, last: int) -> None:
        """Set which heads are read, given the last column that was ever used."""
        layout, width = self.layout, self.layout.width
        columns = range(layout.columns)
        spans = [(layout.heads, layout.head(layout.columns))]
        if self._separates_heads:
            foreign, regular = layout.far_heads, layout.columns // 2
            spans = [(foreign, foreign + width), (layout.heads, layout.alarm)]
            if last >= regular:
                spans.append((layout.head(regular), layout.head(last) + width))
            columns = range(max(regular, last + 1))
        self._head_spans = spans
        self._gauges_at = [(column, layout.head(column) + at.GAUGE) for column in columns]
        """The places in a row of the gauges of these columns."""

    def active_columns(self) -> frozenset[int]:
        """Return the columns whose words may change at any time."""
        return self._columns(at.ACTIVE_COLUMNS)

    def raise_alarm(self, place: int) -> None:
        """Write a number that no process has written before into the alarm at `place`.

        So each worker notices it, even if others write there at the same time.
        """
        self._alarms += 1
        self.words[place] = self.owner << at.OWNER_SHIFT | self._alarms & at.COUNT_MASK
        # The next load of the others' counts must not overtake this store.
        fence()

    def _columns(self, bitmap: int) -> frozenset[int]:
        bits = int.from_bytes(self._bytes[bitmap * at.WORD : (bitmap + at.BITMAP_WORDS) * at.WORD], "little")
        return frozenset(column for column in range(self.layout.columns) if bits >> column & 1)

    def declare_column(self) -> bool:
        """Declare that this process counts in its column; return False if it already is declared. Waits for the file's
        flock.

        Before it counts anything, all other running processes must have seen it: see `seen_by`.
        """
        if self.column is None or self.column in self.active_columns():
            return False
        # If the process is killed between a mark and the version, the next holder of the flock moves the version.
        self.words[PENDING] = 1
        for bitmap in (at.USED_COLUMNS, at.ACTIVE_COLUMNS):
            self._mark(bitmap, self._columns(bitmap) | {self.column})
        fence()
        self.words[at.COLUMNS_VERSION] += 1
        self.words[PENDING] = 0
        self.refresh_columns()
        return True

    def limit_active_columns(self, live: frozenset[int]) -> bool:
        """Declare that only the columns `live` may still change: others are summed once a cell.

        For the flock's holder.
        """
        if self.active_columns() <= live:
            return False
        self._mark(at.ACTIVE_COLUMNS, self.active_columns() & live)
        fence()
        self.words[at.COLUMNS_VERSION] += 1
        self.refresh_columns()
        return True

    def _mark(self, bitmap: int, columns: frozenset[int]) -> None:
        for word in range(at.BITMAP_WORDS):
            self.words[bitmap + word] = sum(1 << column % 64 for column in columns if column // 64 == word)

    def seen_by(self, columns: frozenset[int], version: int) -> bool:
        """Return whether the workers of these columns have all seen which columns are read since `version`."""
        known = (1 << at.OWNER_SHIFT) - 1
        return all(self.words[at.SEEN + column] & known >= version for column in columns)

    def owner_of(self, column: int) -> int:
        """Return the `owner` of the process that has this column, or had it last."""
        return self.words[at.SEEN + column] >> at.OWNER_SHIFT

    def is_living(self, column: int) -> bool:
        """Return whether a running process has this column; costs a system call.

        The hub's has no process, and always counts.
        """
        return column in (self.column, self.layout.hub) or is_counting(self.file, column)
