"""The counts of one row's window: read and charged by this process in one object, whichever policy uses it.

The row is in the table if the table has one to give, else in this process's own memory until then. Each charge is
stored in the map at once; the map is read again when a new cell begins, when the row's sync version moves, or when
other columns than before are to be read.
"""

from collections.abc import Iterator

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELLS_AHEAD, MASK, SHIFT, per_second, width_us
from edgeproxy.edge.counters.local_row import LocalRow
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_FOREIGN
from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.local import Locals

ROW_RETRY_SECONDS = 1.0
"""Seconds until a full table is asked again for a row."""
NEAR_CELLS = 8
"""Cells after the last that was summed within which this process's own column is advanced from there."""
NO_CELL = -1 - NEAR_CELLS
"""A cell number before every cell, and near none."""
LOOPED_SIBLINGS_MAX = 6
"""Siblings whose words are read one by one; of more of them one call sums all that stand side by side."""
UNSETTLED = -(1 << 80)
"""What is taken off the sum of siblings' words so that no sum passes for counts."""


class Counts:
    """The counts of one row: at most one object per row in a process, which alone knows what the process counted.

    After `refresh`, the total is `closed + own`, plus the siblings' live words of this cell. Policies read these fields
    themselves (see window.py): a decision is too frequent to pay for another call.
    """

    __slots__ = (
        "__weakref__",
        "_end",
        "_first",
        "_foreign",
        "_generation",
        "_generation_at",
        "_hub",
        "_is_resolved",
        "_key",
        "_local",
        "_locals",
        "_own_closed",
        "_own_latest",
        "_own_oldest",
        "_own_ring",
        "_per_second",
        "_retry_at",
        "_ring",
        "_runs",
        "_settled",
        "_siblings",
        "_state_at",
        "_table",
        "base",
        "cell",
        "cells",
        "closed",
        "cum",
        "cum_at",
        "more",
        "oldest",
        "own",
        "own_at",
        "row",
        "runs",
        "share",
        "sibling_at",
        "since",
        "sync",
        "sync_at",
        "until",
        "width",
        "words",
    )

    def __init__(self, table: LimitTable, key: bytes, window: float, locals_: Locals) -> None:
        """`window` is in seconds. `locals_` holds rows that the table has no room for."""
        self._table = table
        self._key = table.make_key(key)
        self._locals = locals_
        self._local: LocalRow | None = None
        self._is_resolved = False
        """Whether the row is in the table, as far as is known."""
        self._foreign = 0
        self._retry_at = -1.0
        self._ring = table.layout.ring
        self._hub = 0 if table.layout.hub is None else table.layout.head(table.layout.hub)
        self.cells = table.layout.cells
        self.width = width_us(window, self.cells)
        self._per_second = per_second(self.width)
        self.share = 1
        """This process may use one part in `share` of the limit: 1 unless the row is its own."""
        self.words = table.words
        self.own = self._own_closed = self._own_oldest = self._own_latest = 0
        # No cell, no version: the first decision looks for the row.
        self.cell = NO_CELL
        self.since = self.until = 0.0
        self.sync = -1
        self.sync_at = table.zero
        self.row = 0
        """The word at which the row begins in the table; 0 where it is `local`."""

    @property
    def local(self) -> bool:
        """Whether the row is this process's own, as the table has none to give."""
        return self._local is not None

    @property
    def withheld(self) -> int:
        """The part of the count that no host has used: it keeps this host to its share while the hub is away."""
        return self.words[self.row + self._hub + at.WITHHELD] if self.row and self._hub else 0

    @property
    def is_shut(self) -> bool:
        """Whether nothing passes until the hub is back."""
        return self.withheld > 0 and self.words[self.row + self._hub + at.THRESHOLDS] == 0

    @property
    def parts(self) -> int:
        """The number of hosts that share what drains from a bucket: 1 unless the hub is away."""
        return max(1, self.words[at.HOSTS] & ~at.AWAY) if self.withheld else 1

    def invalidate(self) -> None:
        """Sum again at the next decision, as other columns than before are to be read."""
        if self._is_resolved:
            self._bind_columns(self._table)

    # ---- a new cell

    def recover_clock(self, now: float) -> None:
        """Do nothing: cells of the future count for no reader."""

    def refresh(self, now: float) -> None:
        """Sum the row for the cell of `now`."""
        cell = int(now * self._per_second)
        sync, fresh = self._check_row(now)
        words = self.words
        slot = cell % self._ring
        base = cell << SHIFT
        lowest = cell - self.cells
        self.own_at = self._own_ring + slot
        if sync != self.sync:
            self._foreign = words[self._state_at] & HAS_FOREIGN
        if fresh:
            self.closed = self.own = self._own_closed = 0
            self.oldest = self._own_oldest = self._own_latest = cell
        else:
            low = lowest << SHIFT if lowest > 0 else 1
            high = base + (CELLS_AHEAD + 1 << SHIFT)
            if 0 < cell - self.cell <= NEAR_CELLS and self._own_latest <= self.cell:
                self._advance_own(cell, lowest)
            else:
                self._reload_own(cell, low, high)
            self._sum(base, slot, low, high)
        siblings = self._siblings
        if self._runs:
            self.more = tuple([begin + slot for begin, _ in self._runs])
            self.runs: tuple[slice, ...] = tuple([slice(begin + slot, end, self._ring) for begin, end in self._runs])
            self._settled = UNSETTLED
        elif siblings:
            self.sibling_at = siblings[0][1] + slot
            if len(siblings) > 1:
                self.more = tuple([starts + slot for _, starts in siblings[1:]])
        self.base = base
        self.cell = cell
        # To the rounding of floats, which is far below the skew of clocks that cells allow for.
        self.since = cell / self._per_second
        self.until = (cell + 1) / self._per_second
        self.sync = sync if self._is_resolved else -1

    def _check_row(self, now: float) -> tuple[int, bool]:
        """Look the row up again where it may be another's; return its version, and whether it is new."""
        # The version is read before the rest: whatever changes after it moves it again.
        sync = self.words[self.sync_at]
        if IS_WEAK:
            fence()
        if self._is_resolved and self.words[self._generation_at] == self._generation:
            return sync, False
        fresh = self._resolve_row(now)
        sync = self.words[self.sync_at]
        if IS_WEAK:
            fence()
        return sync, fresh

    def _sum(self, base: int, slot: int, low: int, high: int) -> None:
        """Add the counts of all other columns and of the foreign ring to those of this process's own column."""
        words, first, own_ring = self.words, self._first, self._own_ring
        rings = words[own_ring + self._ring : self._end].tolist()
        if own_ring != first:
            rings = words[first:own_ring].tolist() + rings
        live = [word for word in rings if low <= word < high]
        closed = self._own_closed
        oldest = self._own_oldest
        if live:
            closed += sum_counts(live, one_ring=len(rings) == self._ring)
            # The siblings' live words as they stand in that same list: read a second time they could have moved on,
            # and what was counted between the two readings would be taken off without having been added.
            for sibling, _ in self._siblings:
                theirs = rings[sibling + slot] - base
                if 0 < theirs <= MASK:
                    closed -= theirs
            oldest = min(oldest, min(live) >> SHIFT)
        if self._foreign:
            live = [word for word in words[first - self._ring : first].tolist() if low <= word < high]
            closed += sum_counts(live, one_ring=True)
            oldest = min(oldest, min(live, default=high) >> SHIFT)
        self.closed = closed
        self.oldest = oldest

    def _advance_own(self, cell: int, lowest: int) -> None:
        """Advance this process's own column from the last cell that was summed, as no other process writes to it."""
        words, own_ring, ring = self.words, self._own_ring, self._ring
        closed = self._own_closed + self.own
        oldest = self._own_oldest
        while oldest < cell:
            word = words[own_ring + oldest % ring]
            if word >> SHIFT == oldest:
                if oldest >= lowest:
                    break
                closed -= word & MASK
            oldest += 1
        self._own_closed = closed
        self._own_oldest = oldest
        self.own = 0

    def _reload_own(self, cell: int, low: int, high: int) -> None:
        """Read this process's own column from the map: its counts, or those of the previous holder of the column."""
        own = self.words[self._own_ring : self._own_ring + self._ring].tolist()
        live = [word for word in own if low <= word < high]
        word = self.words[self.own_at]
        self.own = word & MASK if word >> SHIFT == cell else 0
        self._own_closed = sum_counts(live, one_ring=True) - self.own
        self._own_oldest = min(cell, min(live, default=high) >> SHIFT)
        # Beyond this cell where the clock has been set back since.
        self._own_latest = max(own) >> SHIFT

    def live(self) -> dict[int, int]:
        """Return the counts of each cell in the window, of all columns and other hosts. What is withheld for other
        hosts while the hub is away is not included, as it leaves with no cell.
        """
        low = max(1, self.cell - self.cells << SHIFT)
        high = self.cell + CELLS_AHEAD + 1 << SHIFT
        cells: dict[int, int] = {}
        for word in self.words[self._first - self._ring : self._end].tolist():
            if low <= word < high:
                cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        if withheld := self.withheld:
            # It is the latest of what stands in the hub's column, the last.
            for word in sorted(self.words[self._end - self._ring : self._end].tolist(), reverse=True):
                if low <= word < high:
                    some = min(withheld, word & MASK)
                    cells[word >> SHIFT] -= some
                    withheld -= some
        return cells

    def sum_siblings(self) -> int:
        """Return the siblings' counts of this cell, where there are `runs`, by a call for each of them.

        A sum of words is that of counts once it is known which words are of this cell: what the others hold is settled
        and comes off, with the cells' part of all. A word changes from one of the others to one of this cell by far
        more than counts do, so that the sum tells, and the words are read one by one (docs/design/limits.md#decisions).
        """
        words, total = self.words, 0
        for run in self.runs:
            total += sum(words[run])
        live = total - self._settled
        return live if 0 <= live <= MASK else self._settle_siblings()

    def _settle_siblings(self) -> int:
        """Read the siblings' words one by one; return their counts of this cell."""
        words, base = self.words, self.base
        read = [word for run in self.runs for word in words[run].tolist()]
        live = sum([word - base for word in read if 0 < word - base <= MASK])
        # One of a cell to come is of before the clock was set back. It falls as it comes to be of this cell, and could
        # make up for one that rises.
        self._settled = UNSETTLED if max(read) > base + MASK else sum(read) - live
        return live

    # ---- where the row is

    def _resolve_row(self, now: float) -> bool:
        """Find the row, claim it if there is none, or go on in a row of this process's own. Returns whether the row is
        new.
        """
        if self._local is not None and 0 < self._retry_at - now <= ROW_RETRY_SECONDS:
            return False
        table = self._table
        try:
            row, generation, fresh = table.find(self._key, self.width, now)
        except RowUnavailableError as error:
            if isinstance(error, TableFullError):
                self._retry_at = now + ROW_RETRY_SECONDS
                self._locals.full()
            self._is_resolved = False
            if self._local is None:
                self._local = local = LocalRow(self._ring, self.cells)
                self._locals.add(self)
                self._bind(local, 0, 0)
            self.share = max(1, self._locals.hosts * table.active)
            return False
        if self._local is not None:
            # What was let through meanwhile counts from now on for everyone.
            self._pour_local(table, row)
            # It may be of cells that others have summed already. Should the supervisor write the version at this very
            # moment, either makes them look.
            table.notify_readers(row)
            self._local = None
            self._locals.remove(self)
            fresh = False
        self._is_resolved = True
        self.share = 1
        self._bind(table, row, generation)
        return fresh

    def _pour_local(self, table: LimitTable, row: int) -> None:
        """Add what was counted without a row to the row that the table has now."""
        assert self._local is not None
        self._local.pour(table, row, self.cum)

    def _bind(self, place: LimitTable | LocalRow, row: int, generation: int) -> None:
        """Count in this row from now on. Its numbers are loaded, never assumed."""
        self.words = place.words
        self.row = row
        self._generation = generation
        self._generation_at = row + at.ROW_GENERATION
        self.sync_at = row + at.ROW_SYNC
        self._first = row + place.first_ring
        self._own_ring = self._first + place.own_at
        self.cum_at = row + place.head_at + at.CUM
        self.cum = place.words[self.cum_at]
        self._state_at = row + at.ROW_STATE
        self._bind_columns(place)

    def _bind_columns(self, place: LimitTable | LocalRow) -> None:
        self._end = self._first + place.span
        self._siblings = tuple([(there, self._first + ring) for ring, there in place.siblings_at])
        self._runs: tuple[tuple[int, int], ...] = ()
        if len(self._siblings) > LOOPED_SIBLINGS_MAX:
            self._runs = tuple(join_rings([ring for _, ring in self._siblings], self._ring))
        self.sibling_at = place.zero
        self.more = ()
        self.runs = ()
        self.cell = NO_CELL
        self.until = 0.0


def join_rings(begins: list[int], ring: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each row of rings that stand side by side; `begins` is where they do, in order."""
    first = last = begins[0]
    for begin in (*begins[1:], -1):
        if begin != last + ring:
            yield first, last + ring
            first = begin
        last = begin


def sum_counts(live: list[int], *, one_ring: bool) -> int:
    """Return the sum of the counts in these words of cells. `one_ring`: no two of them are of the same cell."""
    if one_ring and live:
        # In a row that is used all the time there is one word for each cell, without a gap, and that can be told from
        # the sum of the words: n different cells from the first on sum to at least this, and to no more only where
        # there is no gap, and where the counts together have not spilled over into the cells' part of the word.
        n = len(live)
        total = sum(live)
        if total >> SHIFT == n * (min(live) >> SHIFT) + n * (n - 1) // 2:
            return total & MASK
    return sum([word & MASK for word in live])
