"""Reports to the hub about the rates of one table: which are due, and which are limited to this host's part while the
hub is away.

rate.py reads the map for it and writes there. No I/O: the owner sends the reports and passes the answers on. Times are
edge time in seconds.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgeproxy.edge.counters import claims
from edgeproxy.edge.counters.hub_column import HubColumn, OnLoss
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.gate import UNUSED_SECONDS
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.sync.plan import IN_TURN, TICK_SECONDS, HostCounts
from edgeproxy.edge.sync.rate import GOOD_SECONDS, HostRate
from edgeproxy.hub.report import Report, ReportAnswer

IDLE_SECONDS = 5.0
"""A row without a count for these seconds is no longer checked, unless the hub forgets its counts."""
SPREAD_SECONDS = 5.0
"""Once the hub is back, rows without new counts are reported again, spread over these seconds."""
ROWS_PER_ROUND_MAX = 1000
"""Rows that one round checks."""
RESUMED_PER_ROUND_MAX = 200
"""Rows reported again that one round schedules."""
URGENT_SHARE = 0.75
"""Share of a round's reports for the rows of the most urgent reason, and share of the rest for the next reason. What
one reason leaves unused goes to the others, and vice versa.
"""


class RowUse(NamedTuple):
    """A worker's use of a row: the row and its terms. `refused`: a request was refused by it."""

    row: int
    generation: int
    terms: RateTerms
    refused: bool = False


class DormantRow(NamedTuple):
    """A row that is no longer in use and fully reported, and whose counts still matter."""

    generation: int
    terms: RateTerms
    until: float


class SharedRate(HostRate):
    """A rate in use, and the time of its next check."""

    __slots__ = ("due", "times", "used_at", "why")

    def __init__(self, table: LimitTable, use: RowUse, now: float) -> None:
        super().__init__(table, use.row, use.generation, use.terms, now)
        self.used_at = now
        self.due = 0.0
        """Time of the next check (0: none); `why` is its reason, one of the constants in plan.py."""
        self.why = IN_TURN
        self.times = 0
        """The value of `_times` when `due` was set; earlier schedules do not count."""


class SharedRates:
    """The windows and buckets of a table that hosts share. `instance` identifies this host on the hub."""

    def __init__(self, table: LimitTable, instance: int, chance: random.Random | None = None) -> None:
        assert table.hub is not None
        self.table = table
        self._hub: HubColumn = table.hub
        self.instance = instance
        self.hosts = 1
        self.rtt = 0.0
        self.tick = TICK_SECONDS
        """Seconds between two reports of a row in use, give or take a fifth."""
        self._random = chance or random.Random()
        self._rows: dict[int, SharedRate] = {}
        self._asleep: dict[int, DormantRow] = {}
        self._woken: deque[int] = deque()
        """Rows of `_asleep` to report again, because the hub may have forgotten them."""
        self._claimed: set[int] = set()
        """Rows whose workers may have claims, or want some."""
        self._due: tuple[list[tuple[float, int]], ...] = ([], [], [])
        """Heap of (time, row) of due checks, for each reason."""
        self._times = 0
        """Count of hub losses and returns."""
        self._away = False
        self._on_loss: OnLoss | None = None
        """`on_loss` as of the last call of `hold_next_rows`."""
        self._unvisited: deque[SharedRate] = deque()
        """Rows that must still be held, after the hub was lost, or reported, after it was found."""

    def __len__(self) -> int:
        return len(self._rows)

    # ---- due rows

    def record_use(self, use: RowUse, now: float) -> None:
        """Record that a worker uses a row, wants claims, or has refused a request."""
        if not self.table.has(use.row, use.generation):
            return
        row = self._rows.get(use.row)
        if row is None or row.generation != use.generation:
            self._asleep.pop(use.row, None)
            row = self._rows[use.row] = self._create_row(use, now)
        row.plan.terms = use.terms
        row.refused |= use.refused
        row.used_at = now
        if not self._away:
            self._schedule(row, now)
        elif row.held is None:
            # At once: whatever this host's part is, the row must not pass more.
            self._unvisited.appendleft(row)
        else:
            # Its part is known, and there is no hub to report to; so not every request needs a report.
            row.keep_warm(now)

    def _create_row(self, use: RowUse, now: float) -> SharedRate:
        """Create the state of a row that hosts share from now on."""
        row = SharedRate(self.table, use, now)
        row.plan.hosts, row.plan.rtt = self.hosts, self.rtt
        if row.has_claims:
            self._claimed.add(use.row)
        return row

    def _schedule(self, row: SharedRate, now: float, counted: HostCounts | None = None) -> None:
        """Schedule the next check of the row. `counted`: its present counts."""
        if self._away:
            return  # Its next hold is scheduled.
        self._reset_if_stale(row)
        plan = row.plan
        plan.hosts, plan.rtt = self.hosts, self.rtt
        due = plan.find_next_report(now, counted or row.read_counts(now))
        if due is None:
            # While it is warm, workers do not report its use unless that matters.
            step, warm_until = plan.compute_step_seconds(now), plan.answered_at + GOOD_SECONDS
            again = min(plan.reported_at + step if plan.reported_at + step > now else now + step, warm_until)
            self._schedule_at(row, again if again > now else max(now, row.used_at) + IDLE_SECONDS, IN_TURN)
        elif row.held is not None and plan.reported_at + self.tick > now:
            self._schedule_at(row, plan.reported_at + self.tick, IN_TURN)
        else:
            self._schedule_at(row, max(now, due.at), due.why)

    def _schedule_at(self, row: SharedRate, due: float, why: int) -> None:
        """Schedule a check of the row, unless one is due sooner or for a better reason."""
        if not row.due or why < row.why or (why == row.why and due < row.due):
            row.due, row.why = due, why
            heapq.heappush(self._due[why], (due, row.row))

    def _reset_if_stale(self, row: SharedRate) -> None:
        """Drop the reports in flight and the schedule of the row if the hub was lost or found since."""
        if row.times != self._times:
            row.times = self._times
            row.plan.drop_pending()
            row.due = 0.0

    def _peek_due(self, why: int) -> tuple[float, SharedRate] | None:
        """Return the next row that is due for this reason, and when."""
        heap = self._due[why]
        while heap:
            due, number = heap[0]
            row = self._rows.get(number)
            if row is not None and row.due == due and row.why == why and row.times == self._times:
                return due, row
            heapq.heappop(heap)
        return None

    def find_next_due(self) -> float | None:
        """Return when the next row is due."""
        if self._unvisited or self._woken:
            return 0.0
        return min(
            [entry[0] for why in range(len(self._due)) if (entry := self._peek_due(why)) is not None], default=None
        )

    def build_reports(
        self, now: float, seqs: Iterator[int], most: int = ROWS_PER_ROUND_MAX
    ) -> Iterator[tuple[SharedRate, Report]]:
        """Build the reports to send now, the most urgent first, and within one urgency the longest waiting first.

        If fewer may be sent than are due, some are less urgent ones, so that all get their turn.
        """
        self._schedule_resumed(now)
        looks = ROWS_PER_ROUND_MAX
        for part in (URGENT_SHARE, 1.0):
            for why in range(len(self._due)):
                enough = most if why == IN_TURN else math.ceil(most * part)
                while enough > 0 and looks > 0 and (entry := self._peek_due(why)) is not None and entry[0] <= now:
                    heapq.heappop(self._due[why])
                    looks -= 1
                    row = entry[1]
                    row.due = 0.0
                    report = self._build_report(row, now, seqs)
                    if report is not None:
                        enough -= 1
                        most -= 1
                        yield row, report

    def _build_report(self, row: SharedRate, now: float, seqs: Iterator[int]) -> Report | None:
        """Build the report of a row that was due, if it needs one, and schedule its next check, if any."""
        plan, report = row.plan, None
        if not row.is_there:
            del self._rows[row.row]
            return None
        counted = row.read_counts(now)
        if counted.cum != plan.reported or counted.waiting or row.refused:
            row.used_at = now
        if counted.waiting:
            self._claimed.add(row.row)
        due = plan.find_next_report(now, counted)
        # A report that the hub has refused is tried again with the next tick.
        if due is not None and due.at <= now and (row.held is None or plan.reported_at + self.tick <= now):
            tick = self.tick * self._random.uniform(0.8, 1.2)
            report = row.build_report(now, self.instance, next(seqs), counted, tick)
            self._schedule_at(row, now + plan.compute_step_seconds(now), IN_TURN)
        elif now - row.used_at > IDLE_SECONDS and not counted.waiting and not plan.in_hand and plan.is_settled(counted):
            if row.is_withholding:
                row.rewrite_withheld(now)
            if row.is_withholding:
                # It expires soon, and no other event would report that.
                self._schedule_at(row, now + self.tick, IN_TURN)
            else:
                del self._rows[row.row]
                self._put_to_sleep(row, now)
        else:
            self._schedule(row, now, counted)
        return report

    def _put_to_sleep(self, row: SharedRate, now: float) -> None:
        """Remember a row that is no longer checked, for as long as its counts matter."""
        self._asleep[row.row] = DormantRow(row.generation, row.plan.terms, row.used_at + row.plan.terms.span)
        # For each new one, two are checked, so that only few have outlived their counts.
        for number in tuple(itertools.islice(self._asleep, 2)):
            asleep = self._asleep.pop(number)
            if asleep.until > now:
                self._asleep[number] = asleep

    def _wake_rows(self, now: float) -> None:
        """Schedule reports of the next rows that are not in use."""
        for _ in range(min(RESUMED_PER_ROUND_MAX, len(self._woken))):
            number = self._woken.popleft()
            asleep = self._asleep.pop(number, None)
            if asleep is None or asleep.until <= now:
                continue
            use = RowUse(number, asleep.generation, asleep.terms)
            if self.table.has(number, use.generation):
                row = self._rows[number] = self._create_row(use, now)
                row.used_at = asleep.until - use.terms.span
                row.times = self._times
                row.plan.reported = row.read_counts(now).cum
                self._schedule_at(row, now + self._random.uniform(0, SPREAD_SECONDS), IN_TURN)

    def compute_overdue_seconds(self, now: float) -> float:
        """Return how long the longest overdue row has waited, in seconds."""
        return max(
            [0.0, *[now - entry[0] for why in range(len(self._due)) if (entry := self._peek_due(why)) is not None]]
        )

    def apply_answer(self, row: SharedRate, now: float, seq: int, answer: ReportAnswer) -> bool:
        """Write an answer into the map. Return whether requests may have waited for it."""
        if not self._is_in_use(row):
            return False
        granted, counted = row.apply_answer(now, seq, answer)
        if granted:
            self._claimed.add(row.row)
        self._schedule(row, now, counted)
        return bool(granted or counted.waiting)

    def _is_in_use(self, row: SharedRate) -> bool:
        """Return whether the row is still in use, and its place in the map not given to another key."""
        return self._rows.get(row.row) is row and row.is_there

    # ---- unused claims

    @property
    def has_claims(self) -> bool:
        """True if `list_unsettled_rows` or `list_unused_claims` may find something."""
        return bool(self._claimed)

    def list_unsettled_rows(self, column: int) -> list[SharedRate]:
        """Return the rows with unsettled claims in a column. `clear_column` settles a column without a holder."""
        rows = [row for number in self._claimed if (row := self._rows.get(number)) is not None]
        return [row for row in rows if row.is_there and not claims.is_settled(self.table, row.row, column)]

    def clear_column(self, row: SharedRate, column: int, now: float) -> None:
        """Return the remaining claims in an unused column; for its holder."""
        claims.clear_claims(self.table, row.row, column)
        self._schedule(row, now)

    def list_unused_claims(self, now: float) -> list[tuple[int, int]]:
        """Return the rows, and their generations, whose claims were unused for a while: workers return the claims.

        The hub gets a report when they have.
        """
        rows = []
        for number in tuple(self._claimed):
            row = self._rows.get(number)
            if row is None or not row.is_there:
                self._claimed.discard(number)
            elif not row.has_claims:
                self._claimed.discard(number)
                self._schedule(row, now)
            elif now - row.given_at >= UNUSED_SECONDS[row.plan.terms.mode] and self._has_claims_in_hand(row):
                rows.append((number, row.generation))
        return rows

    def _has_claims_in_hand(self, row: SharedRate) -> bool:
        return any(claims.in_hand(self.table, row.row, column) for column in range(self.table.layout.columns - 1))

    # ---- the hub is away

    def hold_next_rows(self, now: float, on_loss: OnLoss, most: int = ROWS_PER_ROUND_MAX) -> None:
        """Limit up to `most` rows to this host's part, because the hub is away. To be called again when rows are due.

        Until then the known counts of other hosts still apply.
        """
        if not self._away or on_loss != self._on_loss:
            self._on_loss = on_loss
            self._reset_schedule(away=True)
        for _ in range(most):
            if self._unvisited:
                row = self._unvisited.popleft()
            elif (entry := self._peek_due(IN_TURN)) is not None and entry[0] <= now:
                row = entry[1]
            else:
                break
            self._reset_if_stale(row)
            row.due = 0.0
            if self._rows.get(row.row) is not row:
                continue  # Another row has its place by now.
            if not row.is_there:
                del self._rows[row.row]
            else:
                row.hold(now, self.hosts, on_loss)
                # Buckets drain all the time; in a window the hold lasts as long as the window.
                terms = row.plan.terms
                self._schedule_at(row, now + (self.tick if terms.depth else max(self.tick, terms.span / 4)), IN_TURN)

    def _reset_schedule(self, *, away: bool) -> None:
        """Check all rows again after the hub is lost or found."""
        self._away = away
        self._times += 1
        self._due = [], [], []
        self._unvisited = deque(self._rows.values())
        self._woken.clear()
        if away:
            # The allowances of all answers end at once, though it takes a while until each row is limited.
            for row in self._rows:
                self._hub.write_warm_until(row, 0.0)
                self.table.notify_readers(row)

    def hold_row(self, row: SharedRate, now: float, on_loss: OnLoss) -> None:
        """Limit a row to this host's part, because its node of the hub did not answer."""
        if self._is_in_use(row):
            row.plan.drop_pending()
            row.hold(now, self.hosts, on_loss)
            row.plan.reported_at = now
            self._schedule(row, now)

    def schedule_renewal(self, has: Callable[[bytes], bool], now: float) -> None:
        """Report these keys in full over the next seconds: their new server may lack the last reports."""
        for row in self._rows.values():
            if has(row.plan.key):
                row.plan.is_whole = True
                self._schedule_at(row, now + self._random.uniform(0, SPREAD_SECONDS), IN_TURN)
        if not self._away:
            self._woken.extend([number for number in self._asleep if has(self.table.stored_key(number))])

    def restart(self, now: float) -> None:
        """Start again after the clock was set back, because all recorded moments are invalid."""
        uses = [RowUse(row.row, row.generation, row.plan.terms) for row in self._rows.values() if row.is_there]
        self._rows = {use.row: self._create_row(use, now) for use in uses}
        if self._away:
            self._reset_schedule(away=True)
        else:
            self.resume()

    def resume(self) -> None:
        """Report everything to the hub, which is back, or is another one.

        Rows with counts made meanwhile go at once, all others over the next seconds.
        """
        self._reset_schedule(away=False)
        self._woken.extend(self._asleep)

    def _schedule_resumed(self, now: float) -> None:
        """Schedule the next of the rows that must be reported again."""
        self._wake_rows(now)
        for _ in range(min(RESUMED_PER_ROUND_MAX, len(self._unvisited))):
            row = self._unvisited.popleft()
            if not self._is_in_use(row):
                continue
            self._reset_if_stale(row)
            row.end_hold(now)
            row.plan.reported_at = -1e9
            counted = row.read_counts(now)
            if counted.cum != row.plan.reported or counted.waiting:
                self._schedule(row, now, counted)
            else:
                self._schedule_at(row, now + self._random.uniform(0, SPREAD_SECONDS), IN_TURN)
