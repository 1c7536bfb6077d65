"""Carrying limits over to a table of another layout: the counts of its predecessor are foreign counts in it.

The files of one table form a chain, each the successor of the next older that still exists. All columns and the foreign
one of a row in the older file are added up. The sums are written, as absolute counts, into the foreign column of this
key's row in the younger file. So nothing counts twice, however often it is written, and the counts of an even older
file are handed on. Counts of other hosts are left out if the younger file receives them from the hub itself.
"""

from time import perf_counter

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import MASK, SHIFT, bounds, cell_number, milliseconds
from edgeproxy.edge.counters.layout import FOREIGN_COLUMN
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.reclaim import PERIOD_RETENTION_SECONDS
from edgeproxy.edge.counters.row_key import HAS_GAUGES, HAS_PERIODS, KINDS_OF_ROWS, RowKey
from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError, TableBusyError

ROWS_PER_CLOCK_READ = 256
"""Rows between two reads of the clock."""


class Carry:
    """The carrying of one table's counts into its successor, by the holder of the identity lock or the preparing
    supervisor.
    """

    def __init__(self, old: LimitTable, new: LimitTable) -> None:
        self.old = old
        self.new = new
        self._left_out = old.layout.hub if new.layout.hub is not None else None
        self._columns = old.layout.columns - (self._left_out is not None)
        self._cursor = 0
        self._carried: dict[int, tuple[int, int]] = {}
        self._busy = False

    def slice(self, now: float, until: float) -> tuple[int, bool]:
        """Go on with the round through the old table until `until` (perf_counter), or to its end.

        Returns the number of rows written, and whether the round has ended without a row that could not be written
        because of another process.
        """
        carried = 0
        high = self.old.high
        while self._cursor < high:
            carried += self._row(self._cursor, now)
            self._cursor += 1
            if self._cursor % ROWS_PER_CLOCK_READ == 0 and perf_counter() >= until:
                return carried, False
        self._cursor = 0
        busy, self._busy = self._busy, False
        return carried, not busy

    def _row(self, number: int, now: float) -> bool:
        """Write one row's counts into the new table, unless they are there or none of them matters."""
        old = self.old
        words = old.words
        row = old.row(number)
        if not words[row + at.ROW_HASH]:
            return False
        if IS_WEAK:
            fence()
        if words[row + at.ROW_STATE] & HAS_GAUGES:
            return self._gauge(row, now)
        # Before the cells: a process that counts stores the head last, so the cells hold every count that the head
        # includes.
        width = old.layout.width
        heads = old.heads(row).each if width else words[row + old.layout.heads : row + old.layout.row_words].tolist()
        if IS_WEAK:
            fence()
        mark = (hash(tuple(heads)), words[row + at.ROW_SYNC])
        if self._carried.get(number) == mark:
            return False
        low, high = bounds(cell_number(now, words[row + at.ROW_WIDTH]), old.layout.cells)
        cells: dict[int, int] = {}
        for word in old.read_rings(row, with_hub=self._left_out is None):
            if low <= word < high:
                cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        periods = bool(words[row + at.ROW_STATE] & HAS_PERIODS)
        head, is_retained = self._head(heads, now, periods=periods) if width else ((), False)
        matters = is_retained or bool(cells)
        if matters and not self._write(row, self.new.make_key_of(old, row), now, cells, head):
            return False
        self._carried[number] = mark
        return matters

    def _head(self, heads: list[int], now: float, *, periods: bool) -> tuple[tuple[int, ...], bool]:
        """Return the first words of a head that represents the heads of all columns of a row, and whether it must be
        written even without counts.
        """
        size = self.old.layout.width
        end = min(len(heads), size * (1 + self._columns))
        columns = [heads[start : start + size] for start in range(0, end, size)]
        if periods:
            return _combine_quota_heads(columns, now)
        counted = sum(head[at.CUM] for head in columns)
        until = max(head[at.UNTIL] for head in columns)
        # The level that includes the most counts; its readers add the counts that it does not include yet.
        latest = max(columns, key=lambda head: head[at.SEEN_CUM])
        head = (counted, latest[at.LEVEL], min(latest[at.SEEN_CUM], counted), until)
        return head, until > milliseconds(now)

    def _gauge(self, row: int, now: float) -> bool:
        """Write how much of a row is in use, unless the new table has the number already.

        Every round does this, as no word changes when a process dies.
        """
        new = self.new
        key = new.make_key_of(self.old, row)
        there = new.peek(key)
        stored = 0 if there is None else new.words[there + new.layout.head(FOREIGN_COLUMN) + at.GAUGE]
        used = self.old.in_use(row, without=self._left_out)
        return used != stored and self._write(row, key, now, {}, (0, used))

    def _write(self, row: int, key: RowKey, now: float, cells: dict[int, int], head: tuple[int, ...]) -> bool:
        """Write this into the row of the new table; return False if it has no row to give."""
        words = self.old.words
        try:
            flags = words[row + at.ROW_STATE] & KINDS_OF_ROWS
            target, _, _ = self.new.find(key, words[row + at.ROW_WIDTH], now, flags)
        except RowUnavailableError as error:
            self._busy |= isinstance(error, TableBusyError)
            return False
        # The hub already knows this many of the counts there.
        acknowledged = target + at.ROW_ACKNOWLEDGED
        self.new.words[acknowledged] = max(self.new.words[acknowledged], words[row + at.ROW_ACKNOWLEDGED])
        self.new.write_foreign(target, cells, head)
        return True


def _combine_quota_heads(columns: list[list[int]], now: float) -> tuple[tuple[int, ...], bool]:
    """Return the counts of all columns in a quota's present period, as workers compute it (edge/limits/quota.py)."""
    periods = {
        head[at.PERIOD]: head[at.UNTIL]
        for head in columns
        if head[at.UNTIL] > milliseconds(now - PERIOD_RETENTION_SECONDS)
    }
    if not periods:
        return (), False
    # The one that ends first, or the next if that was begun. One further ahead comes from a clock that was wrong.
    period = min(periods, key=periods.__getitem__)
    if period + 1 in periods:
        period += 1
    return (sum(head[at.CUM] for head in columns if head[at.PERIOD] == period), period, 0, periods[period]), True
