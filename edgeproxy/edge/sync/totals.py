"""Quotas and concurrency that hosts share: one absolute number for each host.

Requests do not wait for an answer. What hosts count between two reports may exceed a limit, by at most the report
threshold of each host. Read from the map, and written into the hub's column, as rate.py does with rates. No I/O. Times
are edge time in seconds.
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
"""A host's reported use counts for other hosts for these seconds. After that, the use of a dead host is free."""
GAUGE_REPEAT_SECONDS, QUOTA_REPEAT_SECONDS = 2.0, 600.0
"""Seconds until an unchanged use is reported again, and an unchanged quota, in case the hub has forgotten it."""
IDLE_SECONDS = 10.0
"""A row without a change for these seconds is no longer checked."""
ROWS_PER_ROUND_MAX = 500
"""Rows that one round checks."""
LEFT_BEHIND_PER_ROUND_MAX = 5000
"""Rows that a previous supervisor may have left behind, checked in one round."""
SPREAD_SECONDS = 5.0
"""Once the hub is back, unchanged rows are reported again, spread over these seconds."""

NOT_KNOWN = -1
"""Placeholder for an unknown reported number, so that the row is reported in any case."""


class SharedTotal:
    """A row in use. Its number was `reported` to the hub as of `reported_at`."""

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
    """The quotas and gauges of one table that hosts share. `instance` identifies this host on the hub."""

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
        """Rows that may hold other hosts' use as a previous supervisor wrote it, perhaps outdated."""

    def __len__(self) -> int:
        return len(self._rows)

    # ---- due rows

    def record_use(self, row: int, generation: int, limit: int, now: float) -> None:
        """Record that a worker uses a row with the limit `limit`."""
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
            )  # Its turn would come in some seconds, and it is needed now.
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
                    self._hub.write_in_use(total.row, 0)  # No other event would report its expiry.
            else:
                self._schedule(total, now)

    def _report_left_behind(self, now: float) -> None:
        """Report rows with other hosts' use that no worker of this supervisor uses."""
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
        """Return how long the longest overdue row has waited, in seconds."""
        return max(0.0, now - self._due[0][0]) if self._due else 0.0

    def _schedule(self, total: SharedTotal, now: float) -> None:
        due = max(now, self._find_report_time(total, now))
        if now - total.used_at <= IDLE_SECONDS:
            # Workers do not report every use.
            due = min(due, now + TICK_SECONDS)
        if not total.due or due < total.due:
            total.due = due
            heapq.heappush(self._due, (due, total.row))

    def _find_report_time(self, total: SharedTotal, now: float) -> float:
        """Return when the next report is due: soon after large changes, with the next tick after any use, else rarely.

        An unchanged use is reported again before others forget it; the answer has the use of others.
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
        """Return the period, 0 for a gauge, and the number that this host has counted in it, or has in use."""
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
        """Write the counts or the use of others into the map."""
        if not self._is_current(total):
            return
        total.others = answer.others
        if isinstance(answer, PeriodTotal):
            self._hub.write_period(total.row, answer.period, max(0, answer.others))
        elif self._rows.get(total.row) is total:
            self._hub.write_in_use(total.row, answer.others)

    def hold_next_rows(self, on_loss: OnLoss, most: int = ROWS_PER_ROUND_MAX) -> None:
        """Limit gauges to this host's part, because the hub is away. Quotas continue with the known counts.

        Up to `most` rows at a time: call it repeatedly, when some are due.
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
        """Limit a row to this host's part, because its node of the hub did not answer.

        The next tick reports it again.
        """
        if self._is_current(total) and self._rows.get(total.row) is total:
            self._hold(total, on_loss)
            total.reported, total.reported_at = NOT_KNOWN, now
            self._schedule(total, now)

    def _hold(self, total: SharedTotal, on_loss: OnLoss) -> None:
        if not self._is_quota(total):
            # The last known use of others ends soon, and no report says when.
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
        """Report all rows again, because the hub is back: changed rows at once."""
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
