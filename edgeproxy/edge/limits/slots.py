"""Slots in use in one row: a gauge for each column.

A gauge's word has a number beside the count. Its owner chose the number when it started. So the count that a dead
process left in a column belongs to no process, whichever takes the column next. It is ignored from the death on, since
a column counts only once its next holder has written its number (`columns.begin_counting`).
"""

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELL_US_MIN, milliseconds
from edgeproxy.edge.counters.layout import AWAY, COUNT_MASK, FOREIGN_COLUMN, HOSTS, ROW_STATE, ROW_SYNC
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_FOREIGN, HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable, RowLookup, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.counts import ROW_RETRY_SECONDS, join_rings
from edgeproxy.edge.limits.headroom import MARGIN_PARTS, Headroom
from edgeproxy.edge.limits.local import Locals, LocalSlots
from edgeproxy.edge.limits.rule import Rule

ROW_RETENTION_SECONDS = 60.0
"""A row is retained for these seconds after its last use."""


class Gauges:
    """The places of all columns' gauges in the rows of one table, as offsets: once for all subjects of a rule."""

    __slots__ = (
        "__weakref__", "columns", "foreign_at", "has_hub", "locals", "own_at", "owner", "places", "retained", "rule",
        "runs", "second", "table", "touched", "words",
    )  # fmt: skip

    def __init__(self, table: LimitTable, rule: Rule, locals_: Locals) -> None:
        """`rule` has the beginning of the rows' keys. `locals_` reports a full table."""
        self.table, self.words, self.locals, self.rule = table, table.words, locals_, rule
        self.owner = table.gauge_owner
        self.has_hub = table.layout.hub is not None
        self.own_at = table.head_at + at.GAUGE
        self.foreign_at = table.layout.head(FOREIGN_COLUMN) + at.GAUGE
        self.second, self.touched, self.retained = -1.0, -1.0, 0
        """A second, the time from which on rows used in it must be retained again, and the end of their retention in
        milliseconds: computed once for all subjects.
        """
        # No key of a row begins with this byte.
        table.readers[b"\0%d" % id(self)] = self
        self.invalidate()

    def invalidate(self) -> None:
        """Read other columns from now on."""
        layout = self.table.layout
        self.columns = self.table.siblings
        self.places = tuple([layout.head(column) + at.GAUGE for column in self.columns])
        self.runs: tuple[tuple[int, int], ...] = ()
        """Series of adjacent gauges, if there are many siblings: the first of each, and its end. In their sum the
        owners' part stays above the counts'.
        """
        if self.places and self.table.reads_runs:
            self.runs = tuple(join_rings([*self.places], layout.width))

    def begin_second(self, now: float) -> None:
        """Compute the retention of rows that are used in the second of `now`."""
        self.second = float(int(now))
        self.touched = self.second + ROW_RETENTION_SECONDS / 2
        self.retained = milliseconds(self.second + 1 + ROW_RETENTION_SECONDS)

    def recover_clock(self, now: float) -> None:
        """Do nothing: slots in use depend on no clock."""


class Slots:
    """The slots of one row. Several objects of a process may use one row, so none remembers the process's own use. An
    object with headroom is the only one of its row.
    """

    __slots__ = (
        "_gauges", "_generation", "_headroom", "_local", "_row", "_subject", "_sync", "_touched",
    )  # fmt: skip

    def __init__(self, gauges: Gauges, subject: bytes) -> None:
        """The row's key is the stem of the gauges' rule and `subject`."""
        self._gauges = gauges
        self._subject = subject
        self._row = self._generation = 0
        """The first word of the row in the table; 0 without one."""
        self._local: LocalSlots | None = None
        self._sync = -1
        self._touched = -1.0
        self._headroom: Headroom | None = None

    @property
    def key(self) -> bytes:
        """The key of the row."""
        return self._gauges.rule.stem + self._subject

    @property
    def place(self) -> tuple[int, int] | None:
        """The first word of its row, and the row's generation; None without a row."""
        return (self._row, self._generation) if self._row else None

    @property
    def used(self) -> int:
        """Slots that this process uses."""
        local, row = self._local, self._row
        if not row and local is not None:
            if not local.row:
                return local.used
            row = local.row
        return self._read_own(row) if row else 0

    def _read_own(self, row: int) -> int:
        """Return what this process uses of a row, and no rest of its predecessor in the column."""
        word = self._gauges.words[row + self._gauges.own_at]
        return word & COUNT_MASK if word - self._gauges.owner == word & COUNT_MASK else 0

    def take(self, limit: int, now: float, amount: int = 1) -> bool:
        """Use `amount` more slots if all processes together then use at most `limit`. Else return False, using none.

        The slot is taken before the others are read. If two processes take the last one at once, both may be refused,
        and the limit is never exceeded.
        """
        gauges = self._gauges
        words = gauges.words
        if words[self._row + ROW_SYNC] != self._sync:
            self._resolve_row(now)
        row = self._row
        if now > self._touched:
            self._touch(now)
        if gauges.has_hub and words[HOSTS] >= AWAY and (limit := self._compute_host_share(limit, amount)) < 1:
            return False
        if not row:
            return self._acquire_local(limit, amount)
        own_at = row + gauges.own_at
        # Its owner has been this process since the row was bound.
        used = (words[own_at] & COUNT_MASK) + amount
        words[own_at] = gauges.owner | used
        places = gauges.places
        headroom = self._headroom
        if headroom is not None:
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
            if self._read_for(headroom, limit, amount) + len(places) <= limit:
                return True
        else:
            elsewhere = words[row + gauges.foreign_at] if words[row + ROW_STATE] & HAS_FOREIGN else 0
            total = used + elsewhere + len(places)
            for other in places:
                total += words[row + other] & COUNT_MASK
            if total <= limit:
                return True
        # One of the last slots. A load may overtake an earlier store, so processes that take one within nanoseconds
        # may not see each other yet. After a fence they do.
        fence()
        if self._sum_gauges() <= limit or self._count_living() <= limit:
            return True
        self.release(amount)
        return False

    def _acquire_local(self, limit: int, amount: int) -> bool:
        """Use more slots of a key without a row, up to this process's share of the limit."""
        local = self._local
        assert local is not None
        if local.used + amount > max(amount, limit // local.share):
            return False
        local.used += amount
        return True

    def _read_for(self, headroom: Headroom, limit: int, amount: int) -> int:
        """Return the slots in use, `amount` acquired just now included. Near the limit, make all others read too."""
        total = self._read_gauges(headroom, limit)
        if total <= compute_calm(limit):
            headroom.until -= amount
        elif headroom.must_raise(limit):
            # Also if the sum exceeds the limit, because the slots of dead processes in it do not count.
            headroom.raise_alarm()
            total = self._sum_gauges()
        return total

    def _read_gauges(self, headroom: Headroom, limit: int) -> int:
        """Return the slots that the columns say are in use. Take headroom if a margin of the limit is left."""
        alarm = self._gauges.words[headroom.alarm_at]
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
        gauges, row = self._gauges, self._row
        words = gauges.words
        elsewhere = words[row + gauges.foreign_at] if words[row + ROW_STATE] & HAS_FOREIGN else 0
        total = (words[row + gauges.own_at] & COUNT_MASK) + elsewhere
        if gauges.runs:
            width = gauges.table.layout.width
            for begin, end in gauges.runs:
                total += sum(words[row + begin : row + end : width]) & COUNT_MASK
            return total
        for place in gauges.places:
            total += words[row + place] & COUNT_MASK
        return total

    def release(self, amount: int = 1) -> None:
        """Release `amount` of the acquired slots."""
        row = self._row
        if not row:
            local = self._local
            assert local is not None
            row = local.row
            if not row:
                local.used -= amount
                return
            # A row in use is not freed, so it still belongs to its key.
        gauges = self._gauges
        gauges.words[row + gauges.own_at] -= amount

    def count_used(self) -> int:
        """Return the number of slots that all processes use, as of the last reading."""
        return self._count_living() if self._row else self.used

    def is_full(self, limit: int, now: float, amount: int = 1) -> bool:
        """Return whether `amount` more would be too many: for all processes together, or for this one's share."""
        gauges = self._gauges
        words = gauges.words
        if words[self._row + ROW_SYNC] != self._sync:
            self._resolve_row(now)
        if gauges.has_hub and words[HOSTS] >= AWAY and (limit := self._compute_host_share(limit, amount)) < 1:
            return True
        row = self._row
        if not row:
            local = self._local
            assert local is not None
            return local.used + amount > max(amount, limit // local.share)
        headroom = self._headroom
        if headroom is not None:
            # As in `take`, written out: a call costs a request or a 429 of 16 workers one percent more instructions.
            if (
                amount == 1
                and headroom.until >= 1
                and words[headroom.alarm_at] == headroom.alarm
                and headroom.limit == limit
            ):
                return False
            total = self._read_gauges(headroom, limit) + amount
        else:
            # The sum of `_sum_gauges`, written out: a call costs a 429 one percent more instructions.
            elsewhere = words[row + gauges.foreign_at] if words[row + ROW_STATE] & HAS_FOREIGN else 0
            total = (words[row + gauges.own_at] & COUNT_MASK) + elsewhere + amount
            for place in gauges.places:
                total += words[row + place] & COUNT_MASK
        return total > limit and self._count_living() + amount > limit

    @property
    def is_shut(self) -> bool:
        """True if no slot is left until the hub is back."""
        words = self._gauges.words
        return words[HOSTS] >= AWAY and words[at.ON_LOSS] == at.DENY

    def recover_clock(self, now: float) -> None:
        """Do nothing: slots in use depend on no clock."""

    def invalidate(self) -> None:
        """Read all columns again at the next decision."""
        self._bind_headroom()

    def _compute_host_share(self, limit: int, amount: int) -> int:
        """Return the slots that this host may use while the hub is away: its part, regardless of the other hosts' slots
        in the hub's column.
        """
        table = self._gauges.table
        words, hub = table.words, table.layout.hub
        assert hub is not None
        if words[at.ON_LOSS] == at.DENY:
            return 0
        if words[at.ON_LOSS] == at.FULL or not self._row:
            return limit
        part = max(amount, limit // max(1, words[HOSTS] & ~AWAY))
        return min(limit, part + (words[self._row + table.layout.head(hub) + at.GAUGE] & COUNT_MASK))

    def _count_living(self) -> int:
        """Return the slots of living processes. It takes system calls, so it is computed only if it decides."""
        gauges, row = self._gauges, self._row
        words, table = gauges.words, gauges.table
        elsewhere = words[row + gauges.foreign_at] if words[row + ROW_STATE] & HAS_FOREIGN else 0
        total = (words[row + gauges.own_at] & COUNT_MASK) + elsewhere
        for column, place in zip(gauges.columns, gauges.places, strict=True):
            word = words[row + place]
            if word & COUNT_MASK and table.is_living(column) and word >> at.OWNER_SHIFT == table.owner_of(column):
                total += word & COUNT_MASK
        return total

    def _touch(self, now: float) -> None:
        """Keep the row from being reclaimed for ROW_RETENTION_SECONDS, even if it is unused by then."""
        gauges = self._gauges
        if not 0.0 <= now - gauges.second < 1.0:
            gauges.begin_second(now)
        self._touched = gauges.touched
        if self._row:
            gauges.words[self._row + gauges.own_at + (at.UNTIL - at.GAUGE)] = gauges.retained

    def _resolve_row(self, now: float) -> None:
        """Find the row, or claim it if there is none. Without one this process counts alone for a while."""
        gauges, local = self._gauges, self._local
        table, words = gauges.table, gauges.words
        if not self._row:
            if local is not None and not local.row and 0 < local.retry_at - now <= ROW_RETRY_SECONDS:
                return
        else:
            # The version before the generation, which it announces.
            sync = words[self._row + ROW_SYNC]
            if IS_WEAK:
                fence()
            if words[self._row + at.ROW_GENERATION] == self._generation:
                self._sync = sync
                return
        key = self.key
        try:
            lookup = table.find(table.make_key(key), CELL_US_MIN, now, HAS_GAUGES)
        except RowUnavailableError as error:
            is_full = isinstance(error, TableFullError)
            if is_full:
                gauges.locals.full()
            elif self.used:
                # The row still belongs to its key: no row in use is freed.
                return
            local = self._use_local(key)
            if is_full:
                local.retry_at = now + ROW_RETRY_SECONDS
            local.share = max(1, gauges.locals.hosts * table.active)
            return
        self.bind_row(lookup, now)
        self._touch(now)

    def describe_row(self) -> tuple[bytes, int, int] | None:
        """Return the key of the row, and the width and flags of a new one; None if it was looked up before."""
        is_new = not self._row and self._local is None
        return (self._gauges.rule.stem + self._subject, CELL_US_MIN, HAS_GAUGES) if is_new else None

    def bind_row(self, lookup: RowLookup, now: float) -> None:
        """Count in this row from now on."""
        row, generation, fresh = lookup
        gauges = self._gauges
        words = gauges.words
        if not fresh or self._local is not None:
            used = 0 if fresh else self._read_own(row)
            if self._local is not None:
                used += self._pour_local(self._local, row, self.key)
            words[row + gauges.own_at] = gauges.owner | used
        self._row, self._generation = row, generation
        self._sync = words[row + ROW_SYNC]  # Before the rest, so that any later change moves it again.
        if gauges.runs or self._headroom is not None:
            self._bind_headroom()

    def _pour_local(self, local: LocalSlots, row: int, key: bytes) -> int:
        """Return the slots that were used without a row. The row has them from now on."""
        self._local = None
        if local.row:
            return 0
        local.row = row
        readers = self._gauges.table.readers
        if readers.get(key) is local:
            del readers[key]
        return local.used

    def _use_local(self, key: bytes) -> LocalSlots:
        """Count in this process's memory. All objects of the key count there together."""
        self._row, self._sync = 0, -1
        local = self._local
        if local is not None and not local.row:
            return local
        readers = self._gauges.table.readers
        known = readers.get(key)
        local = self._local = known if isinstance(known, LocalSlots) else LocalSlots()
        if known is None:
            readers[key] = local
        return local

    def _bind_headroom(self) -> None:
        """Give up headroom, and take some from the next reading on if there are many siblings."""
        self._headroom = Headroom(self._gauges.table, self._row) if self._row and self._gauges.runs else None


class SharedSlots(Slots):
    """The slots of a row that all limits of the process share. The table holds them by a weak reference, for which an
    object needs one word more.
    """

    __slots__ = ("__weakref__",)


def compute_calm(limit: int) -> int:
    """Return the slots in use up to which the margin of this limit is left."""
    return limit - limit // MARGIN_PARTS
