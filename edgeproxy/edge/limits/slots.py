"""Slots in use in one row: a gauge for each column. One object per row and process reads and changes them.

A gauge's word has a number beside the count. Its owner chose the number when it started. So the count that a dead
process left in a column belongs to no process, whichever takes the column next, and is ignored as soon as the column's
lock is free.
"""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELL_US_MIN, milliseconds
from edgeproxy.edge.counters.layout import AWAY, COUNT_MASK, HOSTS
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import FOREIGN_COLUMN, LimitTable, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.counts import ROW_RETRY_SECONDS, join_rings
from edgeproxy.edge.limits.headroom import MARGIN_PARTS, Headroom
from edgeproxy.edge.limits.local import Locals

ROW_RETENTION_SECONDS = 60.0
"""A row is retained for these seconds after its last use."""


class Slots:
    """The slots of one row. A process has at most one such object per row, and only it knows the process's own use."""

    __slots__ = (
        "__weakref__",
        "_columns",
        "_foreign_at",
        "_generation",
        "_headroom",
        "_key",
        "_locals",
        "_own_at",
        "_owner",
        "_places",
        "_retry_at",
        "_row",
        "_runs",
        "_share",
        "_sync",
        "_sync_at",
        "_table",
        "_touched",
        "used",
    )

    def __init__(self, table: LimitTable, key: bytes, locals_: Locals) -> None:
        """`locals_` holds slots that the table has no row for."""
        self._table = table
        self._key = key
        self._locals = locals_
        self._owner = table.gauge_owner
        self._row = -1
        self._generation = 0
        self._retry_at = -1.0
        self._share = 1
        self._sync = -1
        self._sync_at = table.zero
        self._touched = -1.0
        self.used = 0
        """Slots that this process uses."""

    @property
    def place(self) -> tuple[int, int] | None:
        """The first word of its row, and the row's generation; None without a row."""
        return None if self._row < 0 else (self._row, self._generation)

    def acquire(self, limit: int, now: float, amount: int = 1) -> bool:
        """Use `amount` more slots if all processes together then use at most `limit`. Else return False, using none.

        The slot is taken before the others are read. If two processes take the last one at once, both may be refused,
        and the limit is never exceeded.
        """
        words = self._table.words
        if words[self._sync_at] != self._sync:
            self._resolve_row(now)
        if now > self._touched:
            self._touch(now)
        if words[HOSTS] >= AWAY and (limit := self._compute_host_share(limit, amount)) < 1:
            return False
        self.used = used = self.used + amount
        if self._row < 0:
            if used <= max(amount, limit // self._share):
                return True
        else:
            words[self._own_at] = self._owner | used
            places = self._places
            if self._runs:
                headroom = self._headroom
                # The own word is stored already: who raises the alarm after this look reads it.
                # Reservations of units, which are more than one, always read: their limit is different each time.
                if (
                    amount == 1
                    and headroom.until >= 1
                    and words[headroom.alarm_at] == headroom.alarm
                    and headroom.limit == limit
                ):
                    headroom.until -= 1
                    return True
                if self._read_for(limit, amount) + len(places) <= limit:
                    return True
            else:
                total = used + words[self._foreign_at] + len(places)
                for place in places:
                    total += words[place] & COUNT_MASK
                if total <= limit:
                    return True
            # One of the last slots. A load may overtake an earlier store, so processes that take one within nanoseconds
            # may not see each other yet. After a fence they do.
            fence()
            if self._sum_gauges() <= limit or self._count_living() <= limit:
                return True
        self.release(amount)
        return False

    def _read_for(self, limit: int, amount: int) -> int:
        """Return the slots in use, `amount` acquired just now included. Near the limit, make all others read too."""
        headroom = self._headroom
        total = self._read_gauges(limit)
        if total <= compute_calm(limit):
            headroom.until -= amount
        elif headroom.must_raise(limit):
            # Also if the sum exceeds the limit, because the slots of dead processes in it do not count.
            headroom.raise_alarm()
            total = self._sum_gauges()
        return total

    def _read_gauges(self, limit: int) -> int:
        """Return the slots that the columns say are in use. Take headroom if a margin of the limit is left."""
        headroom = self._headroom
        alarm = self._table.words[headroom.alarm_at]
        if IS_WEAK:
            fence()
        total = self._sum_gauges()
        # Slots become free, so others may have headroom again since the last alarm.
        headroom.reset()
        if total <= compute_calm(limit):
            headroom.grant(limit, 0, alarm)
        return total

    def _sum_gauges(self) -> int:
        """Return the slots that the columns say are in use, this process's own included."""
        words = self._table.words
        total: int = self.used + words[self._foreign_at]
        if self._runs:
            for run in self._runs:
                total += sum(words[run]) & COUNT_MASK
            return total
        for place in self._places:
            total += words[place] & COUNT_MASK
        return total

    def release(self, amount: int = 1) -> None:
        """Release `amount` of the acquired slots."""
        self.used = used = self.used - amount
        if self._row >= 0:
            self._table.words[self._own_at] = self._owner | used

    def count_used(self) -> int:
        """Return the number of slots that all processes use, as of the last reading."""
        return self.used if self._row < 0 else self._count_living()

    def is_full(self, limit: int, now: float, amount: int = 1) -> bool:
        """Return whether `amount` more would be too many: for all processes together, or for this one's share."""
        words = self._table.words
        if words[self._sync_at] != self._sync:
            self._resolve_row(now)
        if words[HOSTS] >= AWAY and (limit := self._compute_host_share(limit, amount)) < 1:
            return True
        if self._row < 0:
            return self.used + amount > max(amount, limit // self._share)
        if self._runs:
            headroom = self._headroom
            if (
                amount == 1
                and headroom.until >= 1
                and words[headroom.alarm_at] == headroom.alarm
                and headroom.limit == limit
            ):
                return False
            total = self._read_gauges(limit) + amount
        else:
            # The sum of `_sum_gauges`, written out: a call costs a 429 one percent more instructions.
            total = self.used + amount + words[self._foreign_at]
            for place in self._places:
                total += words[place] & COUNT_MASK
        return total > limit and self._count_living() + amount > limit

    @property
    def is_shut(self) -> bool:
        """True if no slot is left until the hub is back."""
        words = self._table.words
        return words[HOSTS] >= AWAY and words[at.ON_LOSS] == at.DENY

    def recover_clock(self, now: float) -> None:
        """Do nothing: slots in use depend on no clock."""

    def invalidate(self) -> None:
        """Read all columns again at the next decision."""
        if self._row >= 0:
            self._bind_columns()

    def _compute_host_share(self, limit: int, amount: int) -> int:
        """Return the slots that this host may use while the hub is away: its part, regardless of the other hosts' slots
        in the hub's column.
        """
        table = self._table
        words, hub = table.words, table.layout.hub
        assert hub is not None
        if words[at.ON_LOSS] == at.DENY:
            return 0
        if words[at.ON_LOSS] == at.FULL or self._row < 0:
            return limit
        part = max(amount, limit // max(1, words[HOSTS] & ~AWAY))
        return min(limit, part + (words[self._row + table.layout.head(hub) + at.GAUGE] & COUNT_MASK))

    def _count_living(self) -> int:
        """Return the slots of living processes. It takes system calls, so it is computed only if it decides."""
        table = self._table
        words = table.words
        total = self.used + words[self._foreign_at]
        for column, place in zip(self._columns, self._places, strict=True):
            word = words[place]
            if word & COUNT_MASK and word >> at.OWNER_SHIFT == table.owner_of(column) and table.is_living(column):
                total += word & COUNT_MASK
        return total

    def _touch(self, now: float) -> None:
        """Keep the row from being reclaimed for ROW_RETENTION_SECONDS, even if it is unused by then."""
        self._touched = now + ROW_RETENTION_SECONDS / 2
        if self._row >= 0:
            place = self._own_at + at.UNTIL - at.GAUGE
            self._table.words[place] = milliseconds(now + ROW_RETENTION_SECONDS)

    def _resolve_row(self, now: float) -> None:
        """Find the row, or claim it if there is none. Without one this process counts alone for a while."""
        table = self._table
        if self._row < 0:
            if 0 < self._retry_at - now <= ROW_RETRY_SECONDS:
                return
        else:
            # The version before the generation, which it announces.
            sync = table.words[self._sync_at]
            if IS_WEAK:
                fence()
            if table.words[self._row + at.ROW_GENERATION] == self._generation:
                self._sync = sync
                return
        try:
            row, generation, _ = table.find(table.make_key(self._key), CELL_US_MIN, now, HAS_GAUGES)
        except RowUnavailableError as error:
            if isinstance(error, TableFullError):
                self._retry_at = now + ROW_RETRY_SECONDS
                self._locals.full()
            elif self._row >= 0 and self.used:
                # The row still belongs to its key: no row in use is freed.
                return
            self._row, self._sync, self._sync_at = -1, -1, table.zero
            self._share = max(1, self._locals.hosts * table.active)
            return
        self._row = row
        self._generation = generation
        self._sync_at = row + at.ROW_SYNC
        self._sync = table.words[self._sync_at]
        self._own_at = row + table.head_at + at.GAUGE
        self._foreign_at = row + table.layout.head(FOREIGN_COLUMN) + at.GAUGE
        # Its slots in use without a row. If it had none, this overwrites the rest of its predecessor.
        table.words[self._own_at] = self._owner | self.used
        self._touch(now)
        self._bind_columns()

    def _bind_columns(self) -> None:
        table = self._table
        self._columns = table.siblings
        self._places = tuple([self._row + table.layout.head(column) + at.GAUGE for column in table.siblings])
        self._runs: tuple[slice, ...] = ()
        """Series of adjacent gauges, if there are many siblings. In their sum the owners' part stays above the
        counts'.
        """
        if self._places and table.reads_runs:
            width = table.layout.width
            self._runs = tuple([slice(begin, end, width) for begin, end in join_rings([*self._places], width)])
            self._headroom = Headroom(table, self._row)


def compute_calm(limit: int) -> int:
    """Return the slots in use up to which the margin of this limit is left."""
    return limit - limit // MARGIN_PARTS
