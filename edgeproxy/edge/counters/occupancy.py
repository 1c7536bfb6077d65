"""The number of things that each of very many subjects has open now in all workers together: for example, the
connections of an address.

A subject's hash leads to a row, and in it each worker has WAYS words of its own. Any of them may be the subject's: 44
bits of the hash and 20 of the count; a free word is 0. Nothing is claimed and nothing reclaimed, since a word belongs
to one worker, and to a subject only while that has something open there. Words of a dead worker are not counted: the
next holder of its column clears them before it counts there (`columns.begin_counting`).
"""

import os

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.memory_order import fence
from edgeproxy.edge.counters.tallies import TallyTable

ROWS = 4096
WAYS = 16
"""Words for subjects of one row in one column: 65,536 in all. A third of these can be used before any row is full."""

COUNT_BITS = 20
COUNT_MASK = (1 << COUNT_BITS) - 1

ROWS_READ = 256
"""Rows that are read at a time when a process clears its column."""

HERE_ONLY = 0
"""Replaces a word if the row had none free: no worker's word is the first of the file."""


class Occupancy:
    """Counts open things in this process, and reads the counts of others. One object a process."""

    def __init__(self, table: TallyTable) -> None:
        if table.column is None:
            raise ValueError("a process without a column has nothing open")
        self._table = table
        self._words = table.words
        self._first = table.file.layout.first_row + at.TALLIES
        self._stride = table.file.layout.row_words
        self._own = table.column * WAYS
        self._rows = table.file.layout.rows
        self._columns = table.file.layout.columns
        self._span = self._columns * WAYS
        self._open: dict[bytes, tuple[int, int, int]] = {}
        """Subject -> the first word of its row, its own word there, that word's content."""
        self._clear()

    def claim(self, subject: bytes, most: int) -> bool:
        """Add one for this subject, if there are then at most `most` in all running workers; return whether it was
        added.

        As with meters.SharedGauge it is added before the others are read, so that the bound is never exceeded. A
        subject without a free word in its row is counted in this process alone.
        """
        known = self._open.get(subject)
        if known is None:
            hashed = self._table.index.hash(subject)
            row = self._first + hashed % self._rows * self._stride
            place, word = self._find_free_word(row), hashed >> COUNT_BITS << COUNT_BITS
        else:
            row, place, word = known
        word += 1
        self._open[subject] = (row, place, word)
        if place != HERE_ONLY:
            self._words[place] = word
        if self._sum_open(row, word) + self._columns <= most:
            return True
        # One of the last. Two workers that add within nanoseconds may not see each other's addition yet.
        fence()
        if self._sum_open(row, word) <= most:
            return True
        self.release(subject)
        return False

    def release(self, subject: bytes) -> None:
        """Subtract one claimed thing."""
        row, place, word = self._open[subject]
        word -= 1
        if not word & COUNT_MASK:
            del self._open[subject]
            word = 0
        else:
            self._open[subject] = (row, place, word)
        if place != HERE_ONLY:
            self._words[place] = word

    def forget_living(self) -> None:
        """Forget which columns have a living worker, as workers may have gone. Call it twice a second."""
        self._table.forget_living()

    def _sum_open(self, row: int, word: int) -> int:
        """Return how many things all running workers have open for the subject of this word."""
        tag = word >> COUNT_BITS
        total = word & COUNT_MASK
        own = range(self._own, self._own + WAYS)
        for place, theirs in enumerate(self._words[row : row + self._span].tolist()):
            if theirs >> COUNT_BITS == tag and place not in own and self._table.is_living(place // WAYS):
                total += theirs & COUNT_MASK
        return total

    def _find_free_word(self, row: int) -> int:
        """Return a free word of this process's column."""
        first = row + self._own
        words = self._words[first : first + WAYS].tolist()
        return first + words.index(0) if 0 in words else HERE_ONLY

    def _clear(self) -> None:
        """Clear the column at the start of its process, whatever its predecessor had open.

        Rows are read from the file. In the map each page would count as memory of this process, though few are written.
        """
        nothing, words = bytes(WAYS * at.WORD), memoryview(bytes(WAYS * at.WORD)).cast("Q")
        row_bytes = self._stride * at.WORD
        for number in range(0, self._rows, ROWS_READ):
            first = self._first + number * self._stride + self._own
            size = min(ROWS_READ, self._rows - number) * row_bytes
            rows = os.pread(self._table.file.fd, size, first * at.WORD)
            for start in range(0, size, row_bytes):
                if rows[start : start + len(nothing)] != nothing:
                    word = first + start // at.WORD
                    self._words[word : word + WAYS] = words
