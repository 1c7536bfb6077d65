"""The counts of one row's window: one object per row and process reads and charges them, for all policies.

The row is in the table if the table has a free one, else in this process's own memory until then. Each charge is stored
in the map at once. The map is read again when a new cell begins, when the row's sync version moves, or when the set of
columns to read changes.
"""

from collections.abc import Iterator
from functools import lru_cache

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELLS_AHEAD, MASK, SHIFT, per_second, width_us
from edgeproxy.edge.counters.local_row import LocalRow
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_FOREIGN
from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.headroom import FULL_SECONDS, MARGIN_PARTS, Headroom
from edgeproxy.edge.limits.local import Locals

ROW_RETRY_SECONDS = 1.0
"""Seconds until a full table is asked again for a row."""
NEAR_CELLS = 8
"""Up to this many cells after the last sum, this process's own column is advanced instead of read again."""
NO_CELL = -1 - NEAR_CELLS
"""A cell number before every cell, and near none."""
BOUNDS_MAX = 256
"""Cells whose bounds are shared: the latest of each width."""
UNSETTLED = -(1 << 80)
"""Subtracted from the sum of siblings' words, so that no sum looks like counts."""


class Counts:
    """The counts of one row. A process has at most one such object per row, and only it knows the process's own counts.

    After `refresh`, the total is `closed + own`, plus the siblings' live words of this cell. Policies read these fields
    directly (see window.py): a decision is too frequent to pay for another call.
    """

    __slots__ = (
        "__weakref__",
        "_foreign",
        "_generation",
        "_hub",
        "_is_resolved",
        "_key",
        "_local",
        "_locals",
        "_own_closed",
        "_own_latest",
        "_own_oldest",
        "_per_second",
        "_retry_at",
        "_ring",
        "_runs",
        "_settled",
        "_siblings",
        "_table",
        "base",
        "cell",
        "cells",
        "closed",
        "cum",
        "cum_at",
        "headroom",
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
        self._key = key
        self._locals = locals_
        self._local: LocalRow | None = None
        self._is_resolved = False
        """True if the row is in the table, as far as is known."""
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
        """The first word of the row in the table; 0 if it is `local`."""

    @property
    def local(self) -> bool:
        """True if the row is in this process's memory, because the table has none free."""
        return self._local is not None

    @property
    def withheld(self) -> int:
        """The part of the count that no host has used: it keeps this host to its share while the hub is away."""
        return self.words[self.row + self._hub + at.WITHHELD] if self.row and self._hub else 0

    @property
    def is_shut(self) -> bool:
        """True if no request passes until the hub is back."""
        return self.withheld > 0 and self.words[self.row + self._hub + at.THRESHOLDS] == 0

    @property
    def parts(self) -> int:
        """The number of hosts that share the drain of a bucket: 1 unless the hub is away."""
        return max(1, self.words[at.HOSTS] & ~at.AWAY) if self.withheld else 1

    def invalidate(self) -> None:
        """Sum again at the next decision, because the set of columns to read has changed."""
        if self._is_resolved:
            self._bind_columns(self._table)

    # ---- a new cell

    def recover_clock(self, now: float) -> None:
        """Do nothing: readers ignore cells of the future."""

    def refresh(self, now: float) -> None:
        """Sum the row for the cell of `now`."""
        cell, base, since, until = compute_bounds(int(now * self._per_second), self._per_second)
        sync, fresh = self._check_row(now)
        words = self.words
        slot = cell % self._ring
        lowest = cell - self.cells
        first, own_ring, end = self._locate_rings()
        self.own_at = own_ring + slot
        if sync != self.sync:
            self._foreign = words[self.row + at.ROW_STATE] & HAS_FOREIGN
        if fresh:
            self.closed = self.own = self._own_closed = 0
            self.oldest = self._own_oldest = self._own_latest = cell
        else:
            low = lowest << SHIFT if lowest > 0 else 1
            high = base + (CELLS_AHEAD + 1 << SHIFT)
            if 0 < cell - self.cell <= NEAR_CELLS and self._own_latest <= self.cell:
                self._advance_own(own_ring, cell, lowest)
            else:
                self._reload_own(own_ring, cell, low, high)
            rings = words[own_ring + self._ring : end].tolist()
            if own_ring != first:
                rings = words[first:own_ring].tolist() + rings
            self._sum(rings, first, base, slot, low, high)
        self._locate_siblings(slot)
        self.base = base
        self.cell = cell
        self.since, self.until = since, until
        self.sync = sync if self._is_resolved else -1

    def _locate_rings(self) -> tuple[int, int, int]:
        """Return the first words of the columns' rings and of this process's own, and the end of the last used one."""
        place = self._local or self._table
        first = self.row + place.first_ring
        return first, first + place.own_at, first + place.span

    def _locate_siblings(self, slot: int) -> None:
        """Find the siblings' words of the new cell."""
        siblings = self._siblings
        if self._runs:
            self.more = tuple([begin + slot for begin, _ in self._runs])
            self.runs: tuple[slice, ...] = tuple([slice(begin + slot, end, self._ring) for begin, end in self._runs])
            self._settled = UNSETTLED
            self.headroom.reset()
        elif siblings:
            self.sibling_at = siblings[0][1] + slot
            if len(siblings) > 1:
                self.more = tuple([starts + slot for _, starts in siblings[1:]])

    def _check_row(self, now: float) -> tuple[int, bool]:
        """Look the row up again if another key may own it. Return its version, and whether it is new."""
        # The version is read before the rest: any later change moves it again.
        sync = self.words[self.sync_at]
        if IS_WEAK:
            fence()
        if self._is_resolved and self.words[self.row + at.ROW_GENERATION] == self._generation:
            return sync, False
        fresh = self._resolve_row(now)
        sync = self.words[self.sync_at]
        if IS_WEAK:
            fence()
        return sync, fresh

    def _sum(self, rings: list[int], first: int, base: int, slot: int, low: int, high: int) -> None:
        """Add the counts in the `rings` of all other columns, and in the foreign ring, to this process's own counts."""
        live = [word for word in rings if low <= word < high]
        closed = self._own_closed
        oldest = self._own_oldest
        if live:
            closed += sum_counts(live, one_ring=len(rings) == self._ring)
            # The siblings' live words come from the list summed above. A second reading could be newer, and would
            # subtract counts that were never added.
            for sibling, _ in self._siblings:
                theirs = rings[sibling + slot] - base
                if 0 < theirs <= MASK:
                    closed -= theirs
            oldest = min(oldest, min(live) >> SHIFT)
        if self._foreign:
            live = [word for word in self.words[first - self._ring : first].tolist() if low <= word < high]
            closed += sum_counts(live, one_ring=True)
            oldest = min(oldest, min(live, default=high) >> SHIFT)
        self.closed = closed
        self.oldest = oldest

    def _advance_own(self, own_ring: int, cell: int, lowest: int) -> None:
        """Advance this process's own column from the last summed cell, because no other process writes to it."""
        words, ring = self.words, self._ring
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

    def _reload_own(self, own_ring: int, cell: int, low: int, high: int) -> None:
        """Read this process's own column from the map: its counts, or the counts of the previous holder of the
        column.
        """
        own = self.words[own_ring : own_ring + self._ring].tolist()
        live = [word for word in own if low <= word < high]
        word = self.words[self.own_at]
        self.own = word & MASK if word >> SHIFT == cell else 0
        self._own_closed = sum_counts(live, one_ring=True) - self.own
        self._own_oldest = min(cell, min(live, default=high) >> SHIFT)
        # Beyond this cell if the clock has been set back since.
        self._own_latest = max(own) >> SHIFT

    def live(self) -> dict[int, int]:
        """Return the counts of each cell in the window, of all columns and other hosts.

        Counts withheld for other hosts while the hub is away are not included, because they leave with no cell.
        """
        low = max(1, self.cell - self.cells << SHIFT)
        high = self.cell + CELLS_AHEAD + 1 << SHIFT
        cells: dict[int, int] = {}
        first, _, end = self._locate_rings()
        for word in self.words[first - self._ring : end].tolist():
            if low <= word < high:
                cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        if withheld := self.withheld:
            # The withheld part is the latest of the counts in the hub's column, the last one.
            for word in sorted(self.words[end - self._ring : end].tolist(), reverse=True):
                if low <= word < high:
                    some = min(withheld, word & MASK)
                    cells[word >> SHIFT] -= some
                    withheld -= some
        return cells

    def read_siblings(self, left: int, limit: int, cost: int, now: float) -> int:
        """Subtract the siblings' counts of this cell from what is left of a limit without them.

        Take headroom if `cost` leaves the margin of that. If it leaves less, make the others read too, and read again.
        """
        headroom = self.headroom
        alarm = self.words[headroom.alarm_at]
        if IS_WEAK:
            fence()
        headroom.seen = seen = self.sum_siblings()
        margin = limit // MARGIN_PARTS
        if left - seen - cost >= margin:
            headroom.grant(limit, self.own, alarm)
            return left - seen
        headroom.until = -1
        if headroom.must_raise(limit):
            headroom.raise_alarm()
            headroom.seen = seen = self.sum_siblings()
            # As long as the margin is left, others take headroom again.
            if left - seen < margin:
                headroom.alarmed = limit
        if left <= seen:
            headroom.full_until = now + FULL_SECONDS
        return left - seen

    def sum_siblings(self) -> int:
        """Return the siblings' counts of this cell by one call for each of the `runs`.

        A sum of words is a sum of counts once it is known which words belong to this cell. The settled rest is
        subtracted, and so is the cells' part of all. A word that changes to this cell changes by far more than counts
        do. So the sum shows it, and then the words are read one by one (docs/design/limits.md#decisions).
        """
        words, total = self.words, 0
        for run in self.runs:
            total += sum(words[run])
        live = total - self._settled
        return live if 0 <= live <= MASK else self._settle_siblings()

    def _settle_siblings(self) -> int:
        """Read the siblings' words one by one. Return their counts of this cell."""
        words, base = self.words, self.base
        read = [word for run in self.runs for word in words[run].tolist()]
        live = sum([word - base for word in read if 0 < word - base <= MASK])
        # A word of a later cell dates from before the clock was set back. It falls when its process reaches this cell,
        # and could hide another word's rise.
        self._settled = UNSETTLED if max(read) > base + MASK else sum(read) - live
        return live

    # ---- the place of the row

    def _resolve_row(self, now: float) -> bool:
        """Find the row, claim it if there is none, or use a row in this process's memory.

        Return whether the row is new.
        """
        if self._local is not None and 0 < self._retry_at - now <= ROW_RETRY_SECONDS:
            return False
        table = self._table
        try:
            row, generation, fresh = table.find(table.make_key(self._key), self.width, now)
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
            # Requests admitted meanwhile now count for everyone.
            self._pour_local(table, row)
            # They may belong to cells that others have summed already. If the supervisor writes the version at this
            # very moment, either write makes the others read again.
            table.notify_readers(row)
            self._local = None
            self._locals.remove(self)
            fresh = False
        self._is_resolved = True
        self.share = 1
        self._bind(table, row, generation)
        return fresh

    def _pour_local(self, table: LimitTable, row: int) -> None:
        """Add the counts made without a row to the row in the table."""
        assert self._local is not None
        self._local.pour(table, row, self.cum)

    def _bind(self, place: LimitTable | LocalRow, row: int, generation: int) -> None:
        """Count in this row from now on. Its numbers are loaded, never assumed."""
        self.words = place.words
        self.row = row
        self._generation = generation
        self.sync_at = row + at.ROW_SYNC
        self.cum_at = row + place.head_at + at.CUM
        self.cum = place.words[self.cum_at]
        self._bind_columns(place)

    def _bind_columns(self, place: LimitTable | LocalRow) -> None:
        first = self.row + place.first_ring
        self._siblings = tuple([(there, first + ring) for ring, there in place.siblings_at])
        self._runs: tuple[tuple[int, int], ...] = ()
        if self._siblings and self._table.reads_runs:
            self._runs = tuple(join_rings([ring for _, ring in self._siblings], self._ring))
            self.headroom = Headroom(self._table, self.row)
        self.sibling_at = place.zero
        self.more = ()
        self.runs = ()
        self.cell = NO_CELL
        self.until = 0.0


@lru_cache(BOUNDS_MAX)
def compute_bounds(cell: int, each_second: float) -> tuple[int, int, float, float]:
    """Return a cell, its part of the words, and its begin and end in seconds: objects that rows share."""
    # Exact to the rounding of floats, which is far below the clock skew that cells tolerate.
    return cell, cell << SHIFT, cell / each_second, (cell + 1) / each_second


def join_rings(begins: list[int], ring: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each series of adjacent rings; `begins` has their positions in order."""
    first = last = begins[0]
    for begin in (*begins[1:], -1):
        if begin != last + ring:
            yield first, last + ring
            first = begin
        last = begin


def sum_counts(live: list[int], *, one_ring: bool) -> int:
    """Return the sum of the counts in these words of cells. `one_ring`: no two of them belong to one cell."""
    if one_ring and live:
        # A row in constant use has one word for each cell, without a gap. The sum of the words shows that: n different
        # cells sum to at least this value. They sum to exactly this only if there is no gap and the counts together
        # have not spilled into the cells' part of the word.
        n = len(live)
        total = sum(live)
        if total >> SHIFT == n * (min(live) >> SHIFT) + n * (n - 1) // 2:
            return total & MASK
    return sum([word & MASK for word in live])
