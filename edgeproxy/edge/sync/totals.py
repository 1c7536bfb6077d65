"""Quotas and requests at once, as hosts share them: a single number a host, absolute, beside those of the others.

Nobody waits for an answer: what hosts count between two reports may exceed a limit, by what a report is worth telling
at most on each. Read from the map, and written into the hub's column, as rate.py does with rates. No I/O. Times are
edge time in seconds.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from edgeproxy.edge.counters.hub_column import HubColumn, OnLoss
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.sync.plan import SOON_SECONDS, TICK_SECONDS, compute_report_threshold
from edgeproxy.hub.report import Gauge, GaugeTotal, Period, PeriodTotal

GAUGE_HOLDS_SECONDS = 5.0
"""Seconds for which what a host reported in use counts for others: what a host that died had in use is free then."""
GAUGE_REPEAT_SECONDS, QUOTA_REPEAT_SECONDS = 2.0, 600.0
"""Seconds after which what is in use is said again, though it is as it was; and what was counted of a quota, lest the
hub has forgotten it."""
IDLE_SECONDS = 10.0
"""Seconds without a change after which a row is no longer looked at."""
ROWS_PER_ROUND_MAX = 500
"""Rows that are looked at in one round."""
LEFT_BEHIND_PER_ROUND_MAX = 5000
"""Rows looked at in one round, of those that a supervisor before this one may have left behind."""
SPREAD_SECONDS = 5.0
"""Seconds over which rows are reported again once the hub is back, if they have not changed meanwhile."""

NOT_KNOWN = -1
"""Placeholder for an unknown reported number, so that the row is reported in any case."""


class SharedTotal:
    """A row in use, whose number was `reported` to the hub as of `reported_at`."""

    __slots__ = (
        "due",
        "generation",
        "key",
        "limit",
        "others",
        "period",
        "reported",
        "reported_at",
        "row",
        "tick",
        "used_at",
    )

    def __init__(self, row: int, generation: int, key: bytes, limit: int) -> None:
        self.row = row
        self.generation = generation
        self.key = key
        self.limit = limit
        self.reported = self.period = 0
        self.others = 0
        self.reported_at = -1e9
        self.tick = TICK_SECONDS
        """Seconds until the next report."""
        self.used_at = 0.0
        self.due = 0.0


class SharedTotals:
    """The quotas and gauges of one table that hosts share. `instance`: of this host on the hub."""

    def __init__(self, table: LimitTable, instance: int, chance: random.Random | None = None) -> None:
        assert table.hub is not None
        self.table = table
        self._hub: HubColumn = table.hub
        self.instance = instance
        self.hosts = 1
        self._random = chance or random.Random()
        self._rows: dict[int, SharedTotal] = {}
        self._due: list[tuple[float, int]] = []
        self._away = False
        self._on_loss: OnLoss | None = None
        """`on_loss` as of the last call of `hold_next_rows`."""
        self._unvisited: deque[SharedTotal] = deque()
        """Rows that must still be held, after the hub was lost, or reported, after it was found."""
        self._left_behind: Iterator[int] | None = table.rows()
        """Rows in which a supervisor before this one may have written what is in use elsewhere, perhaps outdated."""

    def __len__(self) -> int:
        return len(self._rows)

    # ---- what is due

    def record_use(self, row: int, generation: int, limit: int, now: float) -> None:
        """Take in that a worker uses a row, whose limit is `limit`."""
        if not self.table.has(row, generation):
            return
        total = self._rows.get(row)
        if total is None or total.generation != generation:
            total = SharedTotal(row, generation, self.table.stored_key(row), limit)
            self._rows[row] = total
        total.limit = limit
        total.used_at = now
        if total.reported == NOT_KNOWN:
            total.reported_at = min(
                total.reported_at, now - total.tick
            )  # It has its turn in some seconds, and is wanted now.
        if self._away:
            self._unvisited.appendleft(total)
        else:
            self._schedule(total, now)

    def find_next_due(self) -> float | None:
        """Return when the next row is due."""
        if self._unvisited or (self._left_behind is not None and not self._away):
            return 0.0
        return self._due[0][0] if self._due and not self._away else None

    def build_reports(self, now: float, most: int = 1000) -> Iterator[tuple[SharedTotal, Period | Gauge]]:
        """Build the reports to send now."""
        self._report_left_behind(now)
        self._schedule_resumed(now)
        looks = ROWS_PER_ROUND_MAX
        while self._due and self._due[0][0] <= now and most > 0 and looks > 0:
            looks -= 1
            due, number = heapq.heappop(self._due)
            total = self._rows.get(number)
            if total is None or total.due != due:
                continue
            total.due = 0.0
            if not self._is_current(total):
                del self._rows[number]
                continue
            if self._find_report_time(total, now) <= now:
                most -= 1
                yield total, self._build_report(total, now)
            if now - total.used_at > IDLE_SECONDS and not total.reported:
                del self._rows[number]
                if not self._is_quota(total):
                    self._hub.write_in_use(total.row, 0)  # Nobody would hear of it once that is over.
            else:
                self._schedule(total, now)

    def _report_left_behind(self, now: float) -> None:
        """Report rows that hold what was in use elsewhere and that no worker of this supervisor uses."""
        if self._left_behind is None:
            return
        some = list(islice(self._left_behind, LEFT_BEHIND_PER_ROUND_MAX))
        for row in some:
            generation, elsewhere = self.table.generation(row), self._hub.in_use(row)
            if self.table.counts_gauges(row) and elsewhere and generation % 2 == 0 and row not in self._rows:
                self.record_use(row, generation, elsewhere, now)
        if len(some) < LEFT_BEHIND_PER_ROUND_MAX:
            self._left_behind = None

    def compute_overdue_seconds(self, now: float) -> float:
        """Return the seconds for which the row that is longest overdue has waited."""
        return max(0.0, now - self._due[0][0]) if self._due else 0.0

    def _schedule(self, total: SharedTotal, now: float) -> None:
        due = max(now, self._find_report_time(total, now))
        if now - total.used_at <= IDLE_SECONDS:
            # Workers do not say each time that they use it.
            due = min(due, now + TICK_SECONDS)
        if not total.due or due < total.due:
            total.due = due
            heapq.heappush(self._due, (due, total.row))

    def _find_report_time(self, total: SharedTotal, now: float) -> float:
        """Return when the next report is due: soon after large changes, with the next tick if it was used, else rarely.

        What is in use is reported again before others forget it, though it has not changed; the answer says what others
        use.
        """
        period, count = self._read_count(total)
        changed = abs(count - total.reported) if period == total.period else count
        left = total.limit - count - total.others
        if (
            total.reported != NOT_KNOWN
            and changed
            and changed >= compute_report_threshold(total.limit, left, self.hosts)
        ):
            return total.reported_at + SOON_SECONDS
        if changed or total.used_at > total.reported_at:
            return total.reported_at + total.tick
        return total.reported_at + (
            GAUGE_REPEAT_SECONDS if not period and (count or total.others) else QUOTA_REPEAT_SECONDS
        )

    # ---- the map

    def _is_quota(self, total: SharedTotal) -> bool:
        return self.table.counts_periods(total.row)

    def _read_count(self, total: SharedTotal) -> tuple[int, int]:
        """Return the period, 0 for a gauge, and what this host has counted in it, or has in use."""
        table, row = self.table, total.row
        if not self._is_quota(total):
            return 0, table.in_use(row, without=table.layout.hub)
        columns = table.heads(row).periods(elsewhere=False)
        period = max(number for number, _ in columns)
        return period, sum(count for number, count in columns if number == period)

    def _build_report(self, total: SharedTotal, now: float) -> Period | Gauge:
        total.period, count = self._read_count(total)
        if count != total.reported:
            total.used_at = now
        total.reported, total.reported_at, total.tick = count, now, TICK_SECONDS * self._random.uniform(0.8, 1.2)
        if self._is_quota(total):
            return Period(total.key, self.instance, total.period, count)
        return Gauge(total.key, self.instance, count, now, now + GAUGE_HOLDS_SECONDS)

    def apply_answer(self, total: SharedTotal, now: float, answer: PeriodTotal | GaugeTotal) -> None:
        """Write what others have counted, or have in use, into the map."""
        if not self._is_current(total):
            return
        total.others = answer.others
        if isinstance(answer, PeriodTotal):
            self._hub.write_period(total.row, answer.period, max(0, answer.others))
        elif self._rows.get(total.row) is total:
            self._hub.write_in_use(total.row, answer.others)

    def hold_next_rows(self, on_loss: OnLoss, most: int = ROWS_PER_ROUND_MAX) -> None:
        """Hold gauges to this host's part, as the hub is away; quotas go on with what is known.

        So many rows at a time: call it again and again, when some are due.
        """
        if not self._away or on_loss != self._on_loss:
            self._on_loss = on_loss
            self._reset_schedule(away=True)
        for _ in range(min(most, len(self._unvisited))):
            total = self._unvisited.popleft()
            if self._rows.get(total.row) is total and self._is_current(total):
                self._hold(total, on_loss)

    def _reset_schedule(self, *, away: bool) -> None:
        """Check all rows again after the hub is lost or found."""
        self._away = away
        self._unvisited = deque(self._rows.values())

    def hold_row(self, total: SharedTotal, now: float, on_loss: OnLoss) -> None:
        """Hold a row to this host's part, as its node of the hub did not answer; the next tick reports it again."""
        if self._is_current(total) and self._rows.get(total.row) is total:
            self._hold(total, on_loss)
            total.reported, total.reported_at = NOT_KNOWN, now
            self._schedule(total, now)

    def _hold(self, total: SharedTotal, on_loss: OnLoss) -> None:
        if not self._is_quota(total):
            # What others had in use when they were last heard of is over soon, and nobody says when.
            parts = {"deny": 0, "share": max(1, total.limit // max(1, self.hosts)), "full": total.limit}
            self._hub.write_in_use(total.row, max(0, total.limit - parts[on_loss]), withheld=True)

    def schedule_renewal(self, has: Callable[[bytes], bool], now: float) -> None:
        """Report these keys again over the next seconds: their new server may lack the last reports."""
        for total in self._rows.values():
            if has(total.key):
                total.reported, total.reported_at = (
                    NOT_KNOWN,
                    now - total.tick + self._random.uniform(0, SPREAD_SECONDS),
                )
                self._schedule(total, now)

    def resume(self) -> None:
        """Report all rows again, as the hub is back: at once those that have changed."""
        self._reset_schedule(away=False)

    def _schedule_resumed(self, now: float) -> None:
        """Schedule the next of the rows that must be reported again."""
        for _ in range(min(ROWS_PER_ROUND_MAX, len(self._unvisited))):
            total = self._unvisited.popleft()
            if self._rows.get(total.row) is not total or not self._is_current(total):
                continue
            period, count = self._read_count(total)
            changed = (period, count) != (total.period, total.reported)
            later = 0.0 if changed else self._random.uniform(0, SPREAD_SECONDS)
            total.reported, total.reported_at = NOT_KNOWN, now - total.tick + later
            self._schedule(total, now)

    def _is_current(self, total: SharedTotal) -> bool:
        return self.table.has(total.row, total.generation)
