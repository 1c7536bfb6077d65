"""The layout of a table's file, in words of 64 bits: header, index, rows, and the parts of a row.

    header   512 words, see below
    index    a word per slot: 40 bits of the key's hash and the row's number (see index.py)
    rows     `rows` of `row_words` each

    rings    of a table of limits: those of the columns in regular use, then those of the spare columns, then the
             foreign ones, each in the order of the rows
    rests    of a table of limits or of usage: the rests of long keys
    heads    of a table of limits without a hub: the foreign heads, and those of the spare columns

A row of a limit table is 11 header words and a head of `width` words for each column. Three header words are the
beginning of the key, as most keys are short; quotas have the whole key there, in eight. Without a hub heads are
shorter, only those of the columns in regular use are in the row, and the row's alarm follows the last one. Quotas
always have long heads, and their rings are in the row, since these hold nothing. Each column has a ring of R words. The
first column is the foreign one: counts of older files, written by the supervisor. If limits are shared with other hosts
the last column is the hub's: their counts, also written by the supervisor. Rows that count things in use need no ring,
and spare and foreign rings are mostly empty: pages that nobody reads or writes take no memory. So rows of the two kinds
are handed out from different blocks (rows.py). A row's rings in regular use lie side by side, and the heads do too, so
that one slice reads them all.
A row of a tally table is header words (its hash, its state, the key, and last the mark), and `width` words for each
column. Usage has 8 words of the key there, as most keys are short, and the rest in the second part; others have all 29.

Every word but a row's alarm has one writer at a time. A column's words are written by the process that holds the
column. The foreign ring, the sync version and the marks are written by the supervisor that maintains the tables. The
assignment of rows to keys is written by the holder of the file's flock.
"""

from math import ceil
from typing import NamedTuple

WORD = 8
CHUNK_BYTES = 4 << 20
"""Bytes that a table of limits grows by: for a worker a wait of a millisecond at most where the disk is memory."""
PAGE = 4096
PROBES = 64
"""Slots of the index that a look-up visits at most."""
LOAD_FACTOR = 0.6
"""Rows per slot of the index when every row is taken."""

# The header of a file. Words without a name are zero, ZERO stays zero for ever.
MAGIC, VERSION, KIND, GENERATION, ROWS, COLUMNS, RING, CELLS, WIDTH, INSTANCE, BOOT, SEED = range(12)
"""SEED takes two words."""
IN_USE, HIGH, FREE, PENDING, DAMAGED = range(16, 21)
"""Rows in use; rows ever handed out or set aside; 1 + the first freed row; a change is under way; a change was
interrupted.
"""
CHANGES = 21
"""Changes of the assignment of rows so far, including interrupted ones: a reader that finds it unchanged need not look
again.
"""
COLUMNS_VERSION = 22
SEALED, LOOKED = 23, 24
"""For usage tables: the last batch whose marks are all in the map, and the last Unix second of the search for growth
(edge/usage/seal.py).
"""
HOSTS, AWAY = 25, 1 << 32
"""For tables with a hub column: the hosts that the hub counts, including this one; and AWAY, a bit that is set while
the hub is unreachable.
"""
ON_LOSS, FULL, SHARE, DENY = 26, 0, 1, 2
"""For tables with a hub column: this host's policy while the hub is away: admit all of a limit, its share, or
nothing.
"""
ALLOCATED = 27
"""For tables of limits: the first rows, whose space is allocated; 0: all of them (TableFile.grow)."""
PARTS = 28
"""For tables of limits and of usage: the parts of a row. Of limits, KEYS_APART: rings and the rests of long keys lie
apart, and HEADS_APART: foreign and spare heads, too. Files of earlier formats have APART, rings alone, or 2, a second
part with the spare and foreign rings, or 0: all is in the first one.
"""
APART, KEYS_APART, HEADS_APART = 3, 4, 5
FREE_GAUGES = 29
"""For tables of limits: 1 + the first free row that needs no ring; `FREE` has the others."""
ZERO = 31
USED_COLUMNS, ACTIVE_COLUMNS = 32, 40
"""Bitmaps of BITMAP_WORDS words: columns that ever counted here, and columns whose words may change at any time."""
BITMAP_WORDS = 8
SEEN = 64
"""A word per column: a random 32-bit number of its worker, and the last columns' version that the worker has read."""
OWNER_SHIFT = 32
COUNT_MASK = (1 << OWNER_SHIFT) - 1
"""The part of a gauge's word below its owner: the count."""
HEADER_WORDS = PAGE // WORD
COLUMNS_MAX = BITMAP_WORDS * 64 - SEEN

# The header of a row of a limit table.
ROW_HASH, ROW_GENERATION, ROW_SYNC, ROW_STATE, ROW_WIDTH, ROW_ACKNOWLEDGED, ROW_CLOSING, ROW_BORN = range(8)
"""Hash 0: a free row, whose BORN links to the next. CLOSING and BORN are milliseconds of edge time."""
ROW_KEY = 8
KEY_BYTES = 64
SHORT_KEY_WORDS, REST_WORDS = 3, 5
"""Words of a key in a row, and in the second part."""
RINGS = 16
FOREIGN_COLUMN = -1
HEAD_WORDS = 7
LONE_HEAD_WORDS = 4
"""Words of a head if no other host shares the limits: there are no claims then."""
# The head of a column. The name of a word depends on the kind of row, and on whether the column is the hub's:
#
#     word                 0     1        2          3          4            5              6
#     rate                 CUM   LEVEL    SEEN_CUM   UNTIL      WANT         USED           GIVEN
#     the foreign column's CUM   LEVEL    SEEN_CUM   UNTIL      ALARM (with longer heads)
#     rate, the hub's      CUM   LEVEL    SEEN_CUM   WITHHELD   THRESHOLDS   NO_USE_UNTIL   WARM_UNTIL
#     concurrency                GAUGE               UNTIL
#     concurrency, hub's         GAUGE               WITHHELD
#     quota                CUM   PERIOD              UNTIL
#     quota, the hub's     CUM   PERIOD              UNTIL      LEDGER       LEDGER_PERIOD
CUM, LEVEL, SEEN_CUM, UNTIL, WANT, USED, GIVEN = range(HEAD_WORDS)
"""CUM is the total count of the column. LEVEL is the level of a bucket, and SEEN_CUM the counts of all columns that
this level includes (edge/limits/levels.py). UNTIL is the time until which the row is retained though nothing is counted
in it any more (milliseconds of edge time). WANT, USED and GIVEN are claims requested, used and given, each a sum that
only grows (claims.py).
"""
WITHHELD, THRESHOLDS, NO_USE_UNTIL, WARM_UNTIL = range(3, HEAD_WORDS)
"""WITHHELD is the part of the hub's column whose use is not certain. THRESHOLDS are counts unknown to the hub: above
the first (the upper 32 bits) it must be asked, above the second (the lower 32) it should be informed. Asking is useless
until NO_USE_UNTIL, and the hub's last answer is valid until WARM_UNTIL (milliseconds of edge time). See hub_column.py.
"""
GAUGE = 1
"""For concurrency: the owner's number above OWNER_SHIFT, and its slots in use (edge/limits/slots.py)."""
PERIOD = 1
"""For a quota: the number of the calendar period that CUM counts (edge/limits/quota.py)."""
ALARM = WANT
"""A word that any worker writes: it changes when a worker comes near a limit of the row (edge/limits/headroom.py). It
is in the foreign column's head, or after all heads if these are short.
"""
LEDGER, LEDGER_PERIOD = WANT, USED
"""For a quota, in the hub column: the ledger's count for other hosts, a lower bound, and its calendar period."""
FORMER_HEAD_WORDS = 4
"""Words of a head in files without a head for the foreign column; their `width` is 0."""

# The header of a row of a tally table.
TALLY_HASH, TALLY_STATE, TALLY_KEY = range(3)
TALLIES, SHORT_TALLIES = 32, 11
"""The first word of the columns: after the whole key, or after its first part. The word before is the mark: the part of
a total of usage that has been sealed (edge/usage/seal.py).
"""
TALLY_KEY_BYTES = 232
KEY_REST_WORDS = 21
"""Words of the second part of a row of usage."""


class Layout(NamedTuple):
    """The parameters of a layout; another layout is another file. `ring` and `cells` are 0 in tally tables.

    `width` is the words of a column: all of them in tally tables, of its head in tables of limits.
    """

    kind: str
    rows: int
    columns: int
    ring: int = 0
    cells: int = 0
    width: int = 0
    parts: int = 0

    @property
    def hub(self) -> int | None:
        """The column of other hosts' counts; None if limits are not shared. Workers have an even number."""
        return self.columns - 1 if self.columns % 2 else None

    @property
    def row_words(self) -> int:
        """Words of a row's first part, a multiple of a cache line."""
        if self.ring:
            near = self.columns // 2 if self.parts == HEADS_APART else 1 + self.columns
            heads = self.width * near or FORMER_HEAD_WORDS * self.columns
            return self.heads + heads + (0 < self.width <= ALARM) + 7 & ~7
        return self.tallies + self.width * self.columns + 7 & ~7

    @property
    def tallies(self) -> int:
        """The offset in a row of a tally table of the first column; the mark is the word before."""
        return SHORT_TALLIES if self.parts else TALLIES

    @property
    def near(self) -> int:
        """The rings that lie side by side in each row, with all columns in regular use."""
        if not self.parts:
            return 1 + self.columns
        return self.columns // 2 + (self.hub is not None)

    @property
    def far(self) -> int:
        """The offset from a row to its second part, on a page of its own."""
        return _end_page_words(self.rows * self.row_words)

    @property
    def first_rings(self) -> int:
        """The first word of the first row's rings, of those in regular use."""
        if self.parts >= APART:
            return self.first_row + self.far
        return self.first_row + RINGS + (0 if self.parts else self.ring)

    @property
    def rings_words(self) -> int:
        """The words from a row's rings to those of the next one."""
        return self.ring * self.near if self.parts >= APART else self.row_words

    @property
    def spare(self) -> int:
        """The offset from a row's rings to those of its spare columns, on a page of its own."""
        return _end_page_words(self.rows * self.rings_words)

    def is_far(self, column: int) -> bool:
        """Return whether a column's ring, or its head if heads lie apart, does not lie beside the first one."""
        return bool(self.parts) and not 0 <= column < self.columns // 2 and column != self.hub

    def ring_at(self, column: int) -> int:
        """Return the offset of a column's ring from the row's rings. A foreign one of its own part has none."""
        workers = self.columns // 2
        if not self.parts:
            return self.ring * column
        if column == self.hub:
            return self.ring * workers
        if not self.is_far(column):
            return self.ring * column
        if self.parts >= APART:
            return self.spare + self.ring * (column - workers)
        return self.far - RINGS + self.ring * (1 + column - workers)

    @property
    def foreign(self) -> tuple[int, int]:
        """The first word of the first row's foreign ring, and the words from there to the next row's."""
        if self.parts >= APART:
            return self.first_rings + 2 * self.spare, self.ring
        return self.first_row + (self.far if self.parts else RINGS), self.row_words

    @property
    def key_words(self) -> int:
        """The words of a key in a row of a table of limits."""
        return SHORT_KEY_WORDS if self.parts >= KEYS_APART else RINGS - ROW_KEY

    @property
    def first_rest(self) -> int:
        """The first word of the first row's rest of a key, of REST_WORDS each, on a page of its own."""
        first, words = self.foreign
        return first + _end_page_words(self.rows * words)

    @property
    def heads(self) -> int:
        """The offset in a row of the heads, the foreign column's first unless it lies apart."""
        return ROW_KEY + self.key_words + (0 if self.parts >= APART else self.ring * self.near)

    @property
    def far_heads(self) -> int:
        """The offset from a row to its heads that lie apart, the foreign column's first."""
        return self.first_rest + _end_page_words(self.rows * REST_WORDS) - self.first_row

    @property
    def alarm(self) -> int:
        """The offset in a row of its alarm."""
        if self.parts == HEADS_APART:
            return self.heads + self.width * (self.columns // 2)
        return self.head(FOREIGN_COLUMN) + ALARM if self.width > ALARM else self.head(self.columns)

    def head(self, column: int) -> int:
        """Return the offset from a row to a column's head."""
        if self.parts != HEADS_APART:
            return self.heads + self.width * (1 + column)
        if self.is_far(column):
            return self.far_heads + self.width * max(0, 1 + column - self.columns // 2)
        return self.heads + self.width * column

    @property
    def slots(self) -> int:
        """Slots of the index that hashes lead to; PROBES more follow, so that probing need not wrap."""
        return ceil(self.rows / LOAD_FACTOR)

    @property
    def first_row(self) -> int:
        """The first word of the rows, on a page of its own."""
        return HEADER_WORDS + (self.slots + PROBES + HEADER_WORDS - 1) // HEADER_WORDS * HEADER_WORDS

    def list_extents(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return (first byte, end) of each part of these rows, in whole pages; the header and the index come before the
        first row.
        """
        parts = [(self.first_row, self.row_words)]
        if self.parts >= APART:
            rings = self.first_rings, self.rings_words
            parts += [rings, (rings[0] + self.spare, rings[1]), self.foreign]
            if self.parts >= KEYS_APART:
                parts.append((self.first_rest, REST_WORDS))
            if self.parts == HEADS_APART:
                parts.append((self.first_row + self.far_heads, self.row_words))
        elif self.parts:
            parts.append((self.first_row + self.far, self.row_words if self.ring else KEY_REST_WORDS))
        extents = [(_end_page(start + first * words), _end_page(start + end * words)) for start, words in parts]
        return extents if first else [(0, extents[0][1]), *extents[1:]]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.list_extents(0, self.rows)[-1][1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a table of limits in the file, in all parts."""
        if self.parts >= APART:
            rest = REST_WORDS if self.parts >= KEYS_APART else 0
            rows = self.row_words * (2 if self.parts == HEADS_APART else 1)
            return (rows + 2 * self.rings_words + self.ring + rest) * WORD
        return self.row_words * WORD * max(1, self.parts)

    @property
    def chunk(self) -> int:
        """The rows whose space is allocated at a time."""
        return max(1, CHUNK_BYTES // self.row_bytes)


def _end_page_words(words: int) -> int:
    """Return this many words, up to the end of a page."""
    return (words + HEADER_WORDS - 1) // HEADER_WORDS * HEADER_WORDS


def _end_page(words: int) -> int:
    """Return the bytes of this many words, in whole pages."""
    return (words * WORD + PAGE - 1) // PAGE * PAGE
