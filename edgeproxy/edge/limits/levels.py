"""The level of a leaky bucket in one row, beside its cells: exact to the moment, whatever the cells' width.

The level is the amount that was poured in and has not drained yet. A column's head has two words for it: LEVEL, the
level after the last charge of its process, and SEEN_CUM, the sum of all columns' CUM that this level includes. To
decide, a process takes the level that includes the most, lets it drain until now, and adds the counts since, as if they
had come just now. That can only be too late, so the bucket never admits more than it may.

The word of a level has a tick, a moment at most a small part of a cell ago, and a floating-point number: the level that
would have been at that moment if nothing had drained since, so the tick's width loses nothing. It counts tokens, not
seconds, so that usage stays when the rate or the depth changes.
"""

from typing import NamedTuple

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.rows import LimitTable, RowLookup
from edgeproxy.edge.limits.counts import CellWindow, Counts
from edgeproxy.edge.limits.local import LocalCounts

AHEAD_SECONDS_MAX = 1.0
"""Seconds that a level may lie ahead of the reader's clock. One further ahead was written before the clock was set
back.
"""

UNREAD = -1 << 80
"""Replaces a sum of counts while columns that change rarely must be read."""

# The bits of non-negative doubles sort like their numbers. The bits of a level are its double's, minus the bits of the
# smallest level, without the lowest ones.
_SCRATCH = memoryview(bytearray(8))
DOUBLE, BITS = _SCRATCH.cast("d"), _SCRATCH.cast("Q")
LEVEL_MIN, EXPONENT_BITS, FRACTION_BITS = 2.0**-13, 6, 52
"""Levels are 2⁻¹³ to 2⁵¹ tokens; lower ones are rounded up."""
DOUBLE[0] = LEVEL_MIN
LEVEL_MIN_BITS = BITS[0]


class Scale(NamedTuple):
    """The encoding of level words in the rows of one window."""

    ticks: float
    """Ticks in a second; a power of two."""
    bits: int
    """Bits of a level in the word; the higher bits are its tick's."""
    drop: int
    """Low bits of a double that are left out."""

    def pack(self, level: float) -> int:
        """Encode a level ≥ 0: never lower, and higher by 2⁻²⁴ of it at most."""
        DOUBLE[0] = level
        return -(LEVEL_MIN_BITS - BITS[0] >> self.drop) if level > LEVEL_MIN else 0

    def unpack(self, word: int) -> float:
        """Decode the level in a word."""
        BITS[0] = LEVEL_MIN_BITS + ((word & (1 << self.bits) - 1) << self.drop)
        return DOUBLE[0]


def compute_scale(width: int) -> Scale:
    """Return the scale of rows whose cells are `width` microseconds wide.

    A tick is a sixteenth of a second, or longer for wide cells, which leaves levels more bits. With 34 bits, ticks last
    until 2059. Each bit that ticks do not need halves the rounding of a level.
    """
    spared = max(0, (width // 2_000_000).bit_length() - 1)
    bits = 30 + spared
    return Scale(16 / (1 << spared), bits, EXPONENT_BITS + FRACTION_BITS - bits)


class Level(NamedTuple):
    """The level of a bucket, from the heads of a row."""

    level: float
    at: float
    """The edge time of the level: now, or up to a second later if a clock that is ahead wrote it."""
    seen: int
    """The sum of the columns' counts that the level includes."""
    is_written: bool
    """True if some process wrote exactly this level; else counts came since, and are taken as of now."""


def compute_level(heads: list[int], stride: int, now: float, rate: float, scale: Scale) -> Level:
    """Return the level at edge time `now` (seconds) of a bucket that drains `rate` a second.

    `heads` has the words of all heads, `stride` words for each.
    """
    counted = sum(heads[at.CUM :: stride])
    seen = heads[at.SEEN_CUM :: stride]
    most = max(seen)
    if not most:
        # No process has written a level yet: all counts were made elsewhere.
        return Level(counted, now, counted, counted == 0)
    levels = []
    for known, word in zip(seen, heads[at.LEVEL :: stride], strict=True):
        if known == most:
            since = (word >> scale.bits) / scale.ticks
            behind = since - now > AHEAD_SECONDS_MAX
            drained = 0.0 if behind else max(0.0, now - since) * rate
            levels.append((max(0.0, scale.unpack(word) - drained), now if behind else max(now, since), behind))
    # Each of them is right or too high, so the lowest is right.
    level, moment, behind = min(levels)
    # A level includes all counts made before it was written, even if they were read before.
    return Level(level + max(0, counted - most), moment, max(counted, most), most >= counted and not behind)


class LevelCounts(Counts):
    """The counts of a row that is a bucket too: charges are poured in after a call of `level_now`.

    A process has at most one such object per row, as it remembers the level.
    """

    __slots__ = (
        "_brief",
        "_level_at",
        "_remembers",
        "_rest",
        "_scale",
        "_sibling_cums",
        "_stride",
        "_tick_since",
        "_tick_until",
        "_tick_word",
        "at",
        "level",
        "rate",
        "seen",
    )

    def __init__(self, window: CellWindow, subject: bytes) -> None:
        super().__init__(window, subject)
        self.level = 0.0
        """The level at `at` (edge time), with `seen` counted by all columns."""
        self.at = 0.0
        self.seen = -1
        self.rate = 0.0
        """Tokens that drain in a second, as of the last call."""
        self._brief = 0.0
        self._rest = UNREAD
        self._scale = compute_scale(window.width)
        self._remembers = window.cells * window.width / 1e6
        self._tick_since = self._tick_until = 0.0
        self._tick_word = 0

    def level_now(self, now: float, rate: float) -> float:
        """Return the level at edge time `now` of a bucket that drains `rate` a second. Call it after a refresh."""
        if rate != self.rate:
            self._change_rate(now, rate)
        words = self.window.words
        counted = self.cum + self._rest
        for place in self._sibling_cums:
            counted += words[place]
        if counted != self.seen:
            self._adopt_latest_level(now, counted)
        elapsed = now - self.at
        if elapsed > 0:
            level = self.level - elapsed * rate
            self.level = level = level if level > 0 else 0.0
            self.at = now
            return level
        if elapsed < -AHEAD_SECONDS_MAX:
            self._recover_clock(now)
        return self.level

    def recover_clock(self, now: float) -> None:
        """Write the level as of `now` if it was read at a later time; otherwise the bucket would drain only after
        that.
        """
        if self.seen >= 0 and self.at - now > AHEAD_SECONDS_MAX:
            self.refresh(now)
            self.level_now(now, self.rate)

    def pour(self, cost: int) -> None:
        """Pour in `cost`, which was just counted, and write the level. With a cost of 0, only write it."""
        self.level = level = self.level + cost
        self.seen = seen = self.seen + cost
        moment = self.at
        if not self._tick_since <= moment < self._tick_until:
            self._update_tick(moment)
        # Written as of that tick: a reader subtracts the drain since then.
        DOUBLE[0] = level + (moment - self._tick_since) * self.rate
        bits = BITS[0]
        words, place = self.window.words, self._level_at
        words[place] = self._tick_word | (-(LEVEL_MIN_BITS - bits >> self._scale.drop) if bits > LEVEL_MIN_BITS else 0)
        # After the level: a reader that sees an old number here counts too much, never too little.
        if IS_WEAK:
            fence()
        words[place + 1] = seen
        if level > self._brief:
            words[place + at.UNTIL - at.LEVEL] = int((moment + level / self.rate) * 1000) + 1

    def refresh(self, now: float) -> None:
        """Sum the row for the cell of `now`."""
        sync = self.sync
        if self.local is not None:
            # If the table has a row again, the level that has not drained is poured into it.
            self.level_now(now, self.rate)
        Counts.refresh(self, now)
        if self.sync != sync:
            self._rest = UNREAD

    def _update_tick(self, moment: float) -> None:
        """Set the tick for levels written until its end."""
        ticks, bits, _ = self._scale
        tick = int(moment * ticks)
        self._tick_since, self._tick_until = tick / ticks, (tick + 1) / ticks
        self._tick_word = tick << bits

    def _change_rate(self, now: float, rate: float) -> None:
        """Write the level again at a change of rate, as it drained at the old rate until now."""
        known = self.seen >= 0
        if known:
            self.level_now(now, self.rate)
        self.rate = rate
        self._brief = rate * self._remembers
        if known:
            self.pour(0)

    def _pour_local(self, local: LocalCounts, table: LimitTable, row: int) -> None:
        local.pour(table, row, -int(-self.level // 1))

    def _adopt_latest_level(self, now: float, counted: int) -> None:
        """Adopt the level that includes the most counts, because others have counted since, `counted` in all."""
        if counted < 0:
            self._read_all_heads(now)
            return
        words = self.window.words
        level, since, most = self.level, self.at, self.seen
        best = 0
        if IS_WEAK:
            fence()  # Sums are read before the counts that a level includes.
        for place in self._sibling_cums:
            seen = words[place + at.SEEN_CUM]
            if seen > most:
                best, most = place, seen
        if best:
            word = words[best + at.LEVEL]
            most = words[best + at.SEEN_CUM]
            if IS_WEAK:
                fence()
            if words[best + at.LEVEL] != word:
                # Its process is writing it at this moment. In every case the level is read last, and is the later one.
                most = words[best + at.SEEN_CUM]
                if IS_WEAK:
                    fence()
                word = words[best + at.LEVEL]
            level = self._scale.unpack(word)
            since = (word >> self._scale.bits) / self._scale.ticks
        if since < now:
            level -= (now - since) * self.rate
            if level < 0:
                level = 0.0
            since = now
        if counted > most:
            level += counted - most
            most = counted
        self.level, self.at, self.seen = level, since, most

    def _recover_clock(self, now: float) -> None:
        """Adopt a level of the new clock, or write one, after the clock was set back."""
        self.seen = -1
        self._read_all_heads(now)

    def _read_all_heads(self, now: float) -> None:
        """Read all heads, even of columns that change rarely and of this process's predecessors."""
        place = self.local or self.window.table
        heads, stride = place.read_heads(self.row), self._stride
        rest = sum(heads[at.CUM :: stride]) - self.cum
        # The foreign column's head comes first.
        self._rest = rest - sum([heads[(1 + column) * stride + at.CUM] for column in place.siblings])
        latest = compute_level(heads, stride, now, self.rate, self._scale)
        if latest.seen > self.seen:
            self.level, self.at, self.seen = latest.level, latest.at, latest.seen
        if not latest.is_written:
            # Written from now on, so that later processes know it: it drains.
            self.pour(0)

    def invalidate(self) -> None:
        """Read other columns from now on."""
        if self.row:
            self._bind_columns()

    def bind_row(self, lookup: RowLookup, now: float) -> None:
        """Count in a row that was looked up before the first decision, which reads its levels."""
        self._bind(lookup[0], lookup[1])

    def _bind(self, row: int, generation: int) -> None:
        Counts._bind(self, row, generation)
        self._bind_columns()

    def _bind_columns(self) -> None:
        table, row = self.window.table, self.row
        layout, place = table.layout, self.local or table
        self._stride = layout.width
        self._level_at = row + place.head_at + at.LEVEL
        self._sibling_cums = tuple([row + layout.head(column) + at.CUM for column in place.siblings])
        # The next decision reads all heads and takes the level from them.
        self.seen = -1
        self._rest = UNREAD
