"""The counts of one row's window, read from the map for decisions and charged in it.

The row is in the table if the table has a free one, else in this process's own memory until then. Each charge is stored
in the map at once. The map is read again when a new cell begins, when the row's sync version moves, or when the set of
columns to read changes.
"""

from collections.abc import Iterator
from functools import lru_cache

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELLS_AHEAD, MASK, SHIFT, per_second, width_us
from edgeproxy.edge.counters.layout import ROW_SYNC
from edgeproxy.edge.counters.local_row import LocalRow
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_FOREIGN
from edgeproxy.edge.counters.rows import LimitTable, RowLookup, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.headroom import FULL_SECONDS, MARGIN_PARTS, UNSETTLED, Headroom
from edgeproxy.edge.limits.local import LocalCounts, Locals

ROW_RETRY_SECONDS = 1.0
"""Seconds until a full table is asked again for a row."""
NO_CELL = -1
"""A cell number before every cell."""
ROUNDING_SECONDS = 1e-6
"""Seconds that delay a moment, so that rounding never makes it come early."""
NO_ROW = -1
"""The generation of no row."""
TAILS_MAX = 4096
"""Ends of RateLimit lines that a process shares."""
BOUNDS_MAX = 256
"""Cells whose bounds are shared: the latest of each width."""


class CellWindow:
    """The places of a window's present cell in the rows of one table: once for all subjects of rules with one `stem`.

    They are places of row 0. A word of row n is n × `row_words` later, and n × `rings_words` if it is of the rings,
    which lie apart. `turn` is another object after each change of the cell or of the columns to read, and then each row
    is summed again.
    """

    __slots__ = (
        "__weakref__", "_per_second", "_place", "_seconds", "base", "cell", "cells", "cum_at", "far_span",
        "first", "first_row", "has_hub", "locals", "own_at", "places", "ring", "rings_words", "row_words", "runs",
        "shared", "siblings", "since", "span", "stem", "sync_at", "table", "tails", "tails_until", "turn", "until",
        "versions", "width", "words",
    )  # fmt: skip

    def __init__(
        self, table: LimitTable, window: float, stem: bytes, locals_: Locals, place: LocalRow | None = None
    ) -> None:
        """`window` is in seconds, and `stem` the beginning of the rows' keys. `locals_` holds rows that the table has
        no room for; `place` is such a row, if the window is for that one.
        """
        self.table, self.locals, self.versions, self.stem = table, locals_, table.versions, stem
        self._place = place or table
        self.words = self._place.words
        self.ring, self.cells, self._seconds = table.layout.ring, table.layout.cells, window
        self.width = width_us(window, self.cells)
        self._per_second = per_second(self.width)
        self.first, self.rings_words = self._place.first_rings, self._place.rings_words
        self.first_row, self.row_words = self._place.first_row, table.layout.row_words
        self.sync_at, self.cum_at = self.first_row + at.ROW_SYNC, self.first_row + self._place.head_at + at.CUM
        self.shared: CellWindow | None = None
        """The window of the rows in the table, unless this is that window."""
        self.turn = object()
        self.siblings: tuple[int, ...] = ()
        """The words of the other columns that may change in this cell."""
        self.runs: tuple[tuple[int, int], ...] = ()
        """The same as series of adjacent rings, if there are many siblings: the first word of each, and its end."""
        self.cell, self.base, self.own_at, self.span = NO_CELL, 0, 0, 0
        self.far_span = (0, 0)
        self.places: tuple[int, ...] = ()
        """The places of the words at `own_at` and of the siblings in the list that `Counts.read_rings` returns."""
        self.since = self.until = 0.0
        self.has_hub = table.layout.hub is not None
        """True if limits are shared with other hosts."""
        self.tails: dict[int, bytes] = {}
        """The results of `format_tail` by age, in this turn, until the edge time `tails_until`."""
        self.tails_until = 0.0
        if place is None:
            # No key of a row begins with this byte.
            table.readers[b"\0%d" % id(self)] = self

    def create_local(self, place: LocalRow) -> "CellWindow":
        """Return the same window for a row in this process's memory."""
        local = CellWindow(self.table, self._seconds, self.stem, self.locals, place)
        local.shared = self
        return local

    def invalidate(self) -> None:
        """Find the places again at the next decision, because the set of columns to read has changed."""
        self.cell, self.since, self.until = NO_CELL, 0.0, 0.0

    def recover_clock(self, now: float) -> None:
        """Format `tails` again. Readers ignore cells of the future."""
        self.tails_until = 0.0

    def advance(self, now: float) -> None:
        """Find the places of the cell of `now`."""
        cell, self.base, self.since, self.until = compute_bounds(int(now * self._per_second), self._per_second)
        if cell == self.cell:
            return
        place, ring, slot = self._place, self.ring, cell % self.ring
        self.cell = cell
        self.own_at = self.first + place.own_at + slot
        begins = [self.first + sibling for sibling in place.siblings_at]
        self.siblings = tuple([begin + slot for begin in begins])
        self.runs = ()
        if begins and self.table.reads_runs:
            self.runs = tuple([(begin + slot, end) for begin, end in join_rings(begins, ring)])
        self.span, self.far_span = place.span, place.far_span
        first, words = self.first, (self.own_at, *self.siblings)
        if self.far_span[1]:
            end, far = first + self.span, first + self.far_span[0] - self.span
            self.places = tuple([word - first if word < end else word - far for word in words])
        else:
            self.places = tuple([word - first for word in words])
        self.turn = object()
        self.tails_until = 0.0

    def format_tail(self, age: int, now: float) -> bytes:
        """Return the end of the RateLimit lines for a row whose oldest count has this age, as of the second's first
        call: formatted once for all subjects. A request looks into `tails` before it calls this.
        """
        if now >= self.tails_until:
            self.tails_until = int(now) + 1.0
            self.tails = {}
        # A late answer has the time of its request. Others share this tail in the present second.
        now = max(now, self.tails_until - 1.0)
        tail = self.tails[age] = format_tail(seconds_until_gone(self.cell - age, self.cells, self.width, now))
        return tail


class Counts:
    """The counts of one row. Several objects of a process may count in one row: each reads the process's own counts
    again if another was the latest to do so (`reload`).

    After `refresh`, the total is `closed + own`, plus the siblings' live words of this cell. Policies read these fields
    directly (see window.py): a decision is too frequent to pay for another call.
    """

    __slots__ = (
        "__weakref__", "_generation", "_subject", "age", "closed", "cum", "headroom", "local", "number", "own",
        "sync", "turn", "version", "window",
    )  # fmt: skip

    def __init__(self, window: CellWindow, subject: bytes) -> None:
        """The row's key is the window's stem and `subject`."""
        self.window = window
        self._subject = subject
        self.local: LocalCounts | None = None
        """The row in this process's memory, if the table has none free."""
        self.number = self.version = 0
        """The number of the row in the table; 0 also if it is `local`, or has not been looked up."""
        self._generation = NO_ROW
        # No turn, no version: the first decision looks for the row.
        self.turn: object = None
        self.sync = -1
        self.closed = self.age = self.own = self.cum = 0
        self.headroom: Headroom | None = None
        """This object's headroom; None if it reads its siblings one by one."""

    @property
    def key(self) -> bytes:
        """The key of the row."""
        return self.window.stem + self._subject

    @property
    def row(self) -> int:
        """The first word of the row in the table; 0 if it is `local`, or has not been looked up."""
        window = self.window
        return 0 if self._generation == NO_ROW else window.first_row + self.number * window.row_words

    @property
    def share(self) -> int:
        """This process may use one part in `share` of the limit: 1 unless the row is its own."""
        return 1 if self.local is None else self.local.share

    @property
    def oldest(self) -> int:
        """The oldest cell with a count as of the last sum."""
        return self.window.cell - self.age

    @property
    def withheld(self) -> int:
        """The part of the count that no host has used: it keeps this host to its share while the hub is away."""
        layout = self.window.table.layout
        row = self.row
        return self.window.words[row + layout.head(layout.hub) + at.WITHHELD] if row and layout.hub else 0

    @property
    def is_shut(self) -> bool:
        """True if no request passes until the hub is back."""
        if not self.withheld:
            return False
        layout = self.window.table.layout
        return layout.hub is not None and self.window.words[self.row + layout.head(layout.hub) + at.THRESHOLDS] == 0

    @property
    def parts(self) -> int:
        """The number of hosts that share the drain of a bucket: 1 unless the hub is away."""
        return max(1, self.window.words[at.HOSTS] & ~at.AWAY) if self.withheld else 1

    def invalidate(self) -> None:
        """Do nothing: the window knows which columns to read."""

    def recover_clock(self, now: float) -> None:
        """Do nothing: readers ignore cells of the future."""

    def refresh(self, now: float) -> None:
        """Sum the row for the cell of `now`."""
        sync, fresh = self._check_row(now)
        window = self.window
        if not window.since <= now < window.until:
            window.advance(now)
        if fresh:
            self.closed = self.age = self.own = self.cum = 0
            self._claim_version(window)
        else:
            self._sum(window)
            self.reload()
        if window.runs:
            if self.headroom is None:
                self.headroom = Headroom(window.table, self.row)
            self.headroom.reset()
        self.turn = window.turn
        self.sync = -1 if self._generation == NO_ROW else sync

    def reload(self) -> None:
        """Read this process's own counts from the map, as another object of the row may have counted since."""
        window = self.window
        words = window.words
        own = words[self.number * window.rings_words + window.own_at] - window.base
        self.own = own if 0 < own <= MASK else 0
        self.cum = words[self.number * window.row_words + window.cum_at]
        if self._generation != NO_ROW:
            self._claim_version(window)

    def _claim_version(self, window: CellWindow) -> None:
        """Make other objects of the row read this process's own counts again."""
        self.version = version = window.versions[self.number] + 1
        window.versions[self.number] = version

    def _check_row(self, now: float) -> tuple[int, bool]:
        """Look the row up again if another key may own it. Return its version, and whether it is new."""
        if row := self.row:
            # The version is read before the rest: any later change moves it again.
            sync = self.window.words[row + at.ROW_SYNC]
            if IS_WEAK:
                fence()
            if self.window.words[row + at.ROW_GENERATION] == self._generation:
                return sync, False
        fresh = self._resolve_row(now)
        sync = self.window.words[self.row + at.ROW_SYNC]
        if IS_WEAK:
            fence()
        return sync, fresh

    def _sum(self, window: CellWindow) -> None:
        """Add the counts of all columns, less the ones of this cell that the columns in use may still change."""
        base = window.base
        read = self.read_rings()
        lowest = window.cell - window.cells
        low = lowest << SHIFT if lowest > 0 else 1
        high = base + (CELLS_AHEAD + 1 << SHIFT)
        live = [word for word in read if low <= word < high]
        closed = self.age = 0
        if live:
            closed = sum_counts(live, one_ring=len(read) == window.ring)
            # These words come from the list summed above. A second reading could be newer, and would subtract counts
            # that were never added.
            for place in window.places:
                theirs = read[place] - base
                if 0 < theirs <= MASK:
                    closed -= theirs
            self.age = max(0, window.cell - (min(live) >> SHIFT))
        self.closed = closed

    def read_rings(self) -> list[int]:
        """Read the rings of all columns that were ever used."""
        window, row = self.window, self.row
        words = window.words
        first = self.number * window.rings_words + window.first
        read: list[int] = words[first : first + window.span].tolist()
        begin, end = window.far_span
        if end:
            read += words[first + begin : first + end].tolist()
        if words[row + at.ROW_STATE] & HAS_FOREIGN:
            foreign = window.table.foreign_of(row)
            read += words[foreign : foreign + window.ring].tolist()
        return read

    def live(self) -> dict[int, int]:
        """Return the counts of each cell in the window, of all columns and other hosts.

        Counts withheld for other hosts while the hub is away are not included, because they leave with no cell.
        """
        window = self.window
        words = window.words
        low = max(1, window.cell - window.cells << SHIFT)
        high = window.cell + CELLS_AHEAD + 1 << SHIFT
        cells: dict[int, int] = {}
        for word in self.read_rings():
            if low <= word < high:
                cells[word >> SHIFT] = cells.get(word >> SHIFT, 0) + (word & MASK)
        if withheld := self.withheld:
            # The withheld part is the latest of the counts in the hub's column.
            ring = self.number * window.rings_words + window.first + window.table.hub_at
            for word in sorted(words[ring : ring + window.ring].tolist(), reverse=True):
                if low <= word < high:
                    some = min(withheld, word & MASK)
                    cells[word >> SHIFT] -= some
                    withheld -= some
        return cells

    # ---- many siblings

    def read_siblings(self, left: int, limit: int, cost: int, now: float) -> int:
        """Subtract the siblings' counts of this cell from what is left of a limit without them.

        Take headroom if `cost` leaves the margin of that. If it leaves less, make the others read too, and read again.
        """
        headroom = self.headroom
        assert headroom is not None
        alarm = self.window.words[headroom.alarm_at]
        if IS_WEAK:
            fence()
        headroom.seen = seen = self.sum_siblings(headroom)
        margin = limit // MARGIN_PARTS
        if left - seen - cost >= margin:
            headroom.grant(limit, self.own, alarm)
            return left - seen
        headroom.until = -1
        if headroom.must_raise(limit):
            headroom.raise_alarm()
            headroom.seen = seen = self.sum_siblings(headroom)
            # As long as the margin is left, others take headroom again.
            if left - seen < margin:
                headroom.alarmed = limit
        if left <= seen:
            headroom.full_until = now + FULL_SECONDS
        return left - seen

    def sum_siblings(self, headroom: Headroom) -> int:
        """Return the siblings' counts of this cell by one call for each of the window's `runs`.

        A sum of words is a sum of counts once it is known which words belong to this cell. The settled rest is
        subtracted, and so is the cells' part of all. A word that changes to this cell changes by far more than counts
        do. So the sum shows it, and then the words are read one by one (docs/design/limits.md#decisions).
        """
        window, total = self.window, 0
        words = window.words
        rings = self.number * window.rings_words
        for begin, end in window.runs:
            total += sum(words[rings + begin : rings + end : window.ring])
        live = total - headroom.settled
        return live if 0 <= live <= MASK else self._settle_siblings(headroom)

    def _settle_siblings(self, headroom: Headroom) -> int:
        """Read the siblings' words one by one. Return their counts of this cell."""
        window = self.window
        words = window.words
        base, rings = window.base, self.number * window.rings_words
        read = [words[rings + place] for place in window.siblings]
        live = sum([word - base for word in read if 0 < word - base <= MASK])
        # A word of a later cell dates from before the clock was set back. It falls when its process reaches this cell,
        # and could hide another word's rise.
        headroom.settled = UNSETTLED if max(read) > base + MASK else sum(read) - live
        return live

    # ---- the place of the row

    def describe_row(self) -> tuple[bytes, int, int] | None:
        """Return the key of the row, and the width and flags of a new one; None if it was looked up before."""
        window = self.window
        is_new = self._generation == NO_ROW and self.local is None
        return (window.stem + self._subject, window.width, 0) if is_new else None

    def bind_row(self, lookup: RowLookup, now: float) -> None:
        """Count in a row that was looked up before the first decision. If it was claimed just now, it has no counts, so
        the first decision need not sum any.
        """
        row, generation, fresh = lookup
        window = self.window
        self._generation = generation
        self.number = number = window.table.number_version(row)
        if fresh and not window.runs:
            if not window.since <= now < window.until:
                window.advance(now)
            self.version = window.versions[number]  # Another object that finds the row makes this one read again.
            self.sync = window.words[row + ROW_SYNC]
            self.turn = window.turn

    def _resolve_row(self, now: float) -> bool:
        """Find the row, claim it if there is none, or use a row in this process's memory.

        Return whether the row is new.
        """
        local = self.local
        if local is not None and not local.is_poured and 0 < local.retry_at - now <= ROW_RETRY_SECONDS:
            return False
        window = self.window.shared or self.window
        table = window.table
        try:
            row, generation, fresh = table.find(table.make_key(self.key), window.width, now)
        except RowUnavailableError as error:
            if local is None or local.is_poured:
                local = self._use_local(window)
            if isinstance(error, TableFullError):
                local.retry_at = now + ROW_RETRY_SECONDS
                window.locals.full()
            local.share = max(1, window.locals.hosts * table.active)
            return False
        if local is not None:
            if not local.is_poured:
                # Requests admitted meanwhile now count for everyone.
                self._pour_local(local, table, row)
                # They may belong to cells that others have summed already. If the supervisor writes the version at this
                # very moment, either write makes the others read again.
                table.notify_readers(row)
                local.is_poured = True
                if table.readers.get(self.key) is local:
                    del table.readers[self.key]
                window.locals.remove(self)
                window.locals.remove(local)
            self.local = None
            fresh = False
        self.window = window
        self._bind(row, generation)
        return fresh

    def _use_local(self, window: CellWindow) -> LocalCounts:
        """Use a row in this process's memory. All objects of the key use one."""
        readers, key = window.table.readers, self.key
        known = readers.get(key)
        if isinstance(known, LocalCounts):
            local = known
        else:
            local = LocalCounts(window.ring, window.cells)
            if known is None:
                readers[key] = local
            window.locals.add(local if known is None else self)
        self.local, self.window = local, window.create_local(local)
        self._bind(0, NO_ROW)
        return local

    def _pour_local(self, local: LocalCounts, table: LimitTable, row: int) -> None:
        """Add the counts made without a row to the row in the table."""
        local.pour(table, row, local.words[self.window.cum_at])

    def _bind(self, row: int, generation: int) -> None:
        """Count in this row from now on."""
        self._generation = generation
        self.number = self.window.table.number_version(row) if row else 0
        self.headroom = None


@lru_cache(TAILS_MAX)
def format_tail(seconds: int) -> bytes:
    """Return the end of the RateLimit lines. All subjects with the same end share the object."""
    return b";t=%d\r\n" % seconds


def seconds_until_gone(cell: int, cells: int, width: int, now: float) -> int:
    """Return the whole seconds ≥ 1 until this cell of `width` microseconds is out of a window of this many `cells`."""
    return max(1, int((cell + cells + 1) * width / 1e6 - now + ROUNDING_SECONDS) + 1)


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
