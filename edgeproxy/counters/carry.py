"""Carrying limits over to a table of another layout: its predecessor's counts are foreign counts in it.

Files of one table form a chain, each the successor of the next older that still exists. What stands in a row of
the older, all columns and the foreign ring, is written as absolute counts into the foreign ring of the same key
in the younger; so however often it is done, nothing counts twice, and what an even older file left is handed on.
"""

from time import perf_counter

from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import MASK, SHIFT, bounds, cell_number
from edgeproxy.counters.rows import LimitTable, NoRow

ROUND = 256
"""Rows between two looks at the clock."""


class Carry:
    """The way of one table's counts into its successor. Written by whoever holds the identity lock, or prepares."""

    def __init__(self, old: LimitTable, new: LimitTable) -> None:
        self.old = old
        self.new = new
        self._cursor = 0
        self._carried: dict[int, int] = {}

    def slice(self, now: float, until: float) -> tuple[int, bool]:
        """Go on with the round through the old table until `until` (perf_counter), or to its end.

        Returns how many rows were written, and whether the round has come to its end.
        """
        carried = 0
        high = self.old.high
        while self._cursor < high:
            carried += self._row(self._cursor, now)
            self._cursor += 1
            if self._cursor % ROUND == 0 and perf_counter() >= until:
                return carried, False
        self._cursor = 0
        return carried, True

    def _row(self, number: int, now: float) -> bool:
        """Write one row's counts into the new table, unless they stand there or none of them matters."""
        old = self.old
        words = old.words
        row = old.row(number)
        if not words[row + at.ROW_HASH]:
            return False
        heads = words[row + old.layout.heads : row + old.layout.heads + at.HEADS * old.layout.columns].tolist()
        mark = sum(heads[at.CUM :: at.HEADS]) + (words[row + at.ROW_SYNC] << 64)
        if self._carried.get(number) == mark:
            return False
        width = words[row + at.ROW_WIDTH]
        low, high = bounds(cell_number(now, width), old.layout.cells)
        rings = words[row + at.FOREIGN : row + old.layout.heads].tolist()
        live = [word for word in rings if low <= word < high]
        if live:
            try:
                self._write(row, width, live, now)
            except NoRow:
                return False
        self._carried[number] = mark
        return bool(live)

    def _write(self, row: int, width: int, live: list[int], now: float) -> None:
        new = self.new
        cells: dict[int, int] = {}
        for word in live:
            cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        target, _, _ = new.find(new.key_in(self.old, row), width, now)
        new.foreign(target, cells)
