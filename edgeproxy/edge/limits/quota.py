"""Quotas: an included amount of a meter in a calendar day or month. A request above it is marked or refused.

The count is a whole word of 64 bits beside the number of its period, in a column's head: CUM and PERIOD. The first
process that counts in a period begins it. A clock that is set back over the end of a period does not begin the earlier
one again: the later one continues until its time has come. Workers that decide at once may exceed a hard quota by one
each, less one.
"""

from collections.abc import Iterable
from zoneinfo import ZoneInfo

from edgeproxy.base.calendar import Period, period_of
from edgeproxy.config.refusal_terms import QuotaKind
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELL_US_MIN, milliseconds
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from edgeproxy.edge.counters.row_key import HAS_PERIODS
from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError, TableFullError
from edgeproxy.edge.limits.counts import ROW_RETRY_SECONDS
from edgeproxy.edge.limits.local import Locals

ANY_LEFT = -(1 << 63)
"""The needed amount of a quota that marks and refuses nothing: it never has less."""
NO_PERIOD = Period(-1, 0.0, 0.0)


def find_current_period(now: float, per: str, zone: ZoneInfo, periods: Iterable[int]) -> Period:
    """Return the period to count in at edge time `now`; each of `periods` was begun by some process.

    It is the clock's period, or the next if that was begun. A period further ahead was begun by a wrong clock.
    """
    period = period_of(now, per, zone)
    if period.number + 1 not in periods:
        return period
    return Period(period.number + 1, period.since, period_of(period.until, per, zone).until)


def read_count(words: memoryview, head: int, period: int) -> int:
    """Return the count of a head in the period of this number."""
    if words[head + at.PERIOD] != period:
        return 0
    if IS_WEAK:
        fence()
    count: int = words[head + at.CUM]
    return count


def quota_key(name: str, zone: ZoneInfo, subject: bytes) -> bytes:
    """Return the key of a quota's row; its name contains the meter and the kind of period."""
    return b"q%b:%b:%b" % (name.encode(), str(zone).encode(), subject)


class QuotaCounts:
    """The count of one quota of one subject: at most one object per row in a process."""

    __slots__ = (
        "__weakref__",
        "_generation",
        "_generation_at",
        "_key",
        "_locals",
        "_own",
        "_own_at",
        "_rest",
        "_retry_at",
        "_row",
        "_siblings",
        "_sync",
        "_sync_at",
        "_table",
        "per",
        "period",
        "share",
        "zone",
    )

    def __init__(self, table: LimitTable, key: bytes, per: str, zone: ZoneInfo, locals_: Locals) -> None:
        """`per` is day or month. `locals_` holds counts that the table has no row for."""
        self._table = table
        self._key = key
        self._locals = locals_
        self.per, self.zone = per, zone
        self.period = NO_PERIOD
        """The period that is counted in."""
        self.share = 1
        """This process may use one part in `share` of the quota: 1 unless it counts alone."""
        self._row = -1
        self._generation = self._generation_at = 0
        self._retry_at = -1.0
        self._sync = -1
        self._sync_at = table.zero
        self._own = self._rest = 0
        self._siblings: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, int] | None:
        """The first word of its row, and the row's generation; None without a row."""
        return None if self._row < 0 else (self._row, self._generation)

    def used(self, now: float) -> int:
        """Return the count of all processes in the period of edge time `now`. Call it before `add`."""
        words = self._table.words
        period = self.period
        if not period.since <= now < period.until or words[self._sync_at] != self._sync:
            self._refresh(now)
            period = self.period
        total = self._own + self._rest
        behind = False
        for place in self._siblings:
            number = words[place + at.PERIOD]
            if IS_WEAK:
                fence()
            if number == period.number:
                total += words[place + at.CUM]
            elif number == period.number + 1:
                behind = True
        if behind:
            # By another process's clock this period is over. All processes must count in one period.
            self._refresh(now)
            number = self.period.number
            total = self._own + self._rest
            total += sum([read_count(words, sibling, number) for sibling in self._siblings])
        return total

    def add(self, amount: int) -> None:
        """Add this amount, which may be negative, in the period that `used` read."""
        self._own = own = self._own + amount
        if self._row >= 0:
            self._table.words[self._own_at + at.CUM] = own

    def subtract(self, amount: int, added: float) -> None:
        """Subtract an amount added at edge time `added`, unless its period is over or its row belongs to another
        key.
        """
        period = self.period
        if amount <= self._own and period.since <= added < period.until:
            self.used(added)
            if amount <= self._own:
                self.add(-amount)

    def recover_clock(self, now: float) -> None:
        """Do nothing: a period that was begun continues until its time has come."""

    def invalidate(self) -> None:
        """Read all columns again at the next decision."""
        self._sync = -1

    def _refresh(self, now: float) -> None:
        """Read all columns, at a new period or a row that has changed."""
        table = self._table
        words = table.words
        alone = 0
        # The version before the generation, which it announces.
        sync = words[self._sync_at]
        if IS_WEAK:
            fence()
        if self._row < 0 or words[self._generation_at] != self._generation:
            alone = self._resolve_row(now)
            sync = words[self._sync_at]
            if IS_WEAK:
                fence()
        before = self.period.number
        if self._row < 0:
            self.period = find_current_period(now, self.per, self.zone, (before,))
            if self.period.number != before:
                self._own = 0
            return
        layout = table.layout
        self._sync = sync
        heads = [self._row + layout.head(column) for column in range(-1, layout.columns)]
        periods = {head: words[head + at.PERIOD] for head in heads}
        begun = (*periods.values(), before) if alone else periods.values()
        self.period = find_current_period(now, self.per, self.zone, begun)
        number = self.period.number
        own = self._own_at
        if periods[own] != number:
            # In this order: a reader in between finds nothing counted, in the old period or in the new one.
            words[own + at.CUM] = 0
            fence()
            words[own + at.PERIOD] = number
        if alone and before == number:
            words[own + at.CUM] += alone
        words[own + at.UNTIL] = milliseconds(self.period.until)
        self._own = words[own + at.CUM]
        self._siblings = tuple([self._row + layout.head(column) for column in table.siblings])
        others = [head for head in heads if head != own and head not in self._siblings]
        self._rest = sum([read_count(words, head, number) for head in others])

    def _resolve_row(self, now: float) -> int:
        """Find the row, or claim it if there is none. Without one this process counts alone for a while.

        Return the amount that it has counted alone in this period, which must be added to the row.
        """
        table = self._table
        if self._row < 0 and 0 < self._retry_at - now <= ROW_RETRY_SECONDS:
            return 0
        alone = self._own if self._row < 0 else 0
        try:
            row, self._generation, _ = table.find(table.make_key(self._key), CELL_US_MIN, now, HAS_PERIODS)
        except RowUnavailableError as error:
            if isinstance(error, TableFullError):
                self._retry_at = now + ROW_RETRY_SECONDS
                self._locals.full()
            if self._row >= 0:
                self._own = 0
            self._row, self._sync, self._sync_at = -1, -1, table.zero
            self._rest, self._siblings = 0, ()
            self.share = max(1, self._locals.hosts * table.active)
            return 0
        self._row, self.share = row, 1
        self._generation_at = row + at.ROW_GENERATION
        self._sync_at = row + at.ROW_SYNC
        self._own_at = row + table.head_at
        return alone


class Quota:
    """One quota as it applies to one subject. Costs are units of its meter."""

    __slots__ = ("_counts", "cost", "hard", "kind", "limit", "name", "needs", "when", "why")

    def __init__(
        self,
        name: str,
        included: int,
        *,
        hard: bool,
        when: str,
        counts: QuotaCounts,
        cost: int = 1,
        why: str | None = None,
        holds: bool = True,
        kind: QuotaKind = "quota",
    ) -> None:
        """`holds`: it limits the requests that it is charged for; else it neither refuses nor marks them."""
        self.name = name
        self.limit = included
        self.hard = hard and holds
        """True if requests above it are refused; else they are marked."""
        self.when = when
        """The condition on requests that its meter counts."""
        self.cost = cost
        """The charge at admission; 0 if its meter counts later."""
        self.needs = max(1, cost) if holds else ANY_LEFT
        """The amount that must be left to admit a request, or to admit it without a mark."""
        self.kind: QuotaKind = kind
        self.why = why
        """A further reason in refusals."""
        self._counts = counts

    @property
    def counts(self) -> QuotaCounts:
        """The object that counts it."""
        return self._counts

    def left(self, now: float) -> int:
        """Return the amount still included at edge time `now`; negative if more was used."""
        counts = self._counts
        used = counts.used(now)
        return (self.limit if counts.share == 1 else min(self.limit, max(1, self.limit // counts.share))) - used

    def charge(self, cost: int = 1) -> None:
        """Count `cost` in the period that `left` read."""
        self._counts.add(cost)

    def count(self, amount: int, now: float) -> None:
        """Charge an amount counted later, at edge time `now`, whatever is left."""
        self._counts.used(now)
        self._counts.add(amount)

    def refund(self, cost: int, charged: float) -> None:
        """Refund a charge made at edge time `charged`."""
        self._counts.subtract(cost, charged)

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return the whole seconds until the next period begins; 0 if `cost` and the amount a request needs pass
        now.
        """
        if not self.hard or self.left(now) >= max(cost, self.needs):
            return 0
        return max(1, int(self._counts.period.until - now) + 1)


class Balance(Quota):
    """Prepaid credits. Once they are spent, no wait helps; the customer must buy more."""

    __slots__ = ()

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return one second, though no wait helps; 0 if there are credits."""
        return 1 if self.hard and self.left(now) < max(cost, self.needs) else 0


class RequestCap(Quota):
    """The highest cost of one request. Nothing is counted, and no wait helps a request that costs more."""

    __slots__ = ()

    def __init__(self, cost: int, most: int) -> None:
        self.name, self.limit, self.hard, self.when, self.cost, self.needs = "request", most, True, "admitted", 0, cost
        self.why = None
        self.kind = "cap"

    def left(self, now: float) -> int:
        """Return the highest cost, at any time."""
        return self.limit

    def retry_after(self, now: float, cost: int = 1) -> int:
        """Return one second, though no wait helps: see `find_impossible_costs`."""
        return 1
