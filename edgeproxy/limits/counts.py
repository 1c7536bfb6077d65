"""What is counted in one row's window: read and charged by this process in one object, whoever asks.

The row is the table's where there is one to be had, else a row in this process's own memory, until there is.
Each charge is stored in the map at once; what stands in the map is read anew whenever a new cell begins, the
row's sync version moves, or other columns than before are to be read.
"""

from edgeproxy.counters import layout as at
from edgeproxy.counters.cells import AHEAD, MASK, SHIFT, per_second, width_us
from edgeproxy.counters.rows import LimitTable, NoRow, TableFull
from edgeproxy.limits.local import LocalRow, Locals

AGAIN = 1.0
"""Seconds after which a full table is asked again for a row."""


class Counts:
    """The counts of one row: at most one object per row in a process, for it alone knows what the process counted.

    After `refresh`, what is counted is `closed + own`, and what the siblings' live words say of this cell. Those who
    decide read these fields themselves (see window.py): a decision is too frequent to be a call more.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_foreign",
        "_generation",
        "_key",
        "_local",
        "_locals",
        "_place",
        "_row",
        "_table",
        "base",
        "cell",
        "closed",
        "cum",
        "cum_at",
        "more",
        "oldest",
        "own",
        "own_at",
        "per_second",
        "share",
        "sibling_at",
        "sync",
        "sync_at",
        "width",
        "words",
    )

    def __init__(self, table: LimitTable, key: bytes, window: float, locals_: Locals) -> None:
        """`window`: seconds. `locals_`: where to go while the table has no row."""
        self._table = table
        self._key = table.key(key)
        self._locals = locals_
        self._again = -1.0
        self.width = width_us(window, table.layout.cells)
        self.per_second = per_second(self.width)
        self.share = 1
        """Of a limit this process may use one part in `share`: 1 unless the row is its own."""
        self._local: LocalRow | None = None
        self._place: LimitTable | LocalRow = table
        self._row = self._generation = -1
        self._foreign = True
        self.words = table.words
        self.cell = self.sync = -1
        self.sync_at = table.zero

    def refresh(self, cell: int, now: float) -> None:
        """Sum the row for `cell`, which is the cell of `now`."""
        # Read before the rest: whatever changes after it moves the version again.
        sync = self.words[self.sync_at]
        if self._row < 0 or self._local is not None or self.words[self._row + at.ROW_GENERATION] != self._generation:
            self._settle(now)
            sync = self.words[self.sync_at]
        words, place, row = self.words, self._place, self._row
        ring = place.layout.ring
        slot = cell % ring
        base = cell << SHIFT
        low = max(1, cell - place.layout.cells << SHIFT)
        high = base + (AHEAD + 1 << SHIFT)
        first = row + place.layout.rings
        rings = words[first : first + place.span].tolist()
        live = [word for word in rings if low <= word < high]
        closed = sum([word & MASK for word in live])
        # The live words as they stand in that same list: read a second time they could have moved on, and what
        # was counted between the two readings would be taken off without having been added.
        own = rings[place.own_at + slot] - base
        self.own = own if 0 < own <= MASK else 0
        closed -= self.own
        for sibling in place.siblings_at:
            theirs = rings[sibling + slot] - base
            if 0 < theirs <= MASK:
                closed -= theirs
        if self._foreign or sync != self.sync:
            foreign = [word for word in words[row + at.FOREIGN : first].tolist() if low <= word < high]
            closed += sum([word & MASK for word in foreign])
            live += foreign
            self._foreign = bool(foreign)
        self.closed = closed
        self.oldest = min(live) >> SHIFT if live else cell
        self.own_at = first + place.own_at + slot
        siblings = place.siblings_at
        self.sibling_at = first + siblings[0] + slot if siblings else place.zero
        self.more = tuple([first + sibling + slot for sibling in siblings[1:]]) if len(siblings) > 1 else ()
        self.base = base
        self.cell = cell
        self.sync = -1 if self._local is not None else sync

    def look_again(self) -> None:
        """Other columns than before are to be read: sum anew at the next decision."""
        self.cell = -1

    @property
    def local(self) -> bool:
        """The row is this process's own: the table has none to give."""
        return self._local is not None

    def live(self, cell: int) -> dict[int, int]:
        """What is counted now in each cell that counts at `cell`, by all columns and from elsewhere."""
        place, row = self._place, self._row
        low = max(1, cell - place.layout.cells << SHIFT)
        high = cell + AHEAD + 1 << SHIFT
        cells: dict[int, int] = {}
        for word in self.words[row + at.FOREIGN : row + place.layout.rings + place.span].tolist():
            if low <= word < high and word & MASK:
                cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        return cells

    @property
    def cells(self) -> int:
        """Cells of the window."""
        return self._table.layout.cells

    # ---- where the row is

    def _settle(self, now: float) -> None:
        """Find the row, claim it if there is none, or go on in a row of this process's own."""
        if self._local is not None and now < self._again:
            return
        table = self._table
        try:
            row, generation = table.find(self._key, self.width, now)
        except NoRow as none:
            if isinstance(none, TableFull):
                self._again = now + AGAIN
                self._locals.full()
            if self._local is None:
                self._local = local = LocalRow(table.layout.ring, table.layout.cells)
                self._locals.enter(self)
                self._bind(local, 0, 0)
            self.share = max(1, self._locals.hosts * table.active)
            return
        if self._local is not None:
            # What was let through meanwhile counts from now on for everyone.
            self._local.pour(table.words, row + table.layout.rings + table.own_at, row + self._cum_of(table))
            self._local = None
            self._locals.leave(self)
        self.share = 1
        self._bind(table, row, generation)

    def _bind(self, place: "LimitTable | LocalRow", row: int, generation: int) -> None:
        self._place = place
        self._row = row
        self._generation = generation
        self._foreign = True
        self.words = place.words
        self.sync_at = row + at.ROW_SYNC
        self.cum_at = row + self._cum_of(place)
        self.cum = place.words[self.cum_at]
        self.sync = -1

    @staticmethod
    def _cum_of(place: "LimitTable | LocalRow") -> int:
        return place.layout.heads + at.HEADS * (place.column or 0) + at.CUM
