"""Coordinates limits with other hosts: reports workers' use to the hub, and writes the use of others into the map.

A worker names the rows that it uses; the rest is read from the map (edge/sync/rate.py, edge/sync/totals.py). Nothing
waits for the hub: due reports go out as far as there is time for them (edge/sync/pace.py), and answers are written when
they come. If two supervisors share a state directory, as during an upgrade, one does so for the workers of both
(leader.py).
"""

import asyncio
import gc
import itertools
from collections.abc import Callable
from functools import partial
from time import monotonic, thread_time
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.base import log
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.tasks import Tasks
from edgeproxy.config import hub_settings
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.file import TableError
from edgeproxy.edge.counters.hub_column import HubColumn
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import file_name
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import ClaimsUnused, FromLeader, HubAnswered, LimitRow, LimitsUsed, LimitUse, RateUse
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.sync.leader import Leader
from edgeproxy.edge.sync.pace import REPORTS_PER_ROUND_MAX, Pace
from edgeproxy.edge.sync.pending_reports import PendingUses
from edgeproxy.edge.sync.shared import RowUse, SharedRate, SharedRates
from edgeproxy.edge.sync.totals import SharedTotal, SharedTotals
from edgeproxy.hub.report import GaugeTotal, Period, PeriodTotal, Report, ReportAnswer

if TYPE_CHECKING:
    from edgeproxy.hub.hub import Hub, KeyFilter

ROUND_SECONDS_MIN = 0.002
"""Minimum of seconds between two rounds of reports: reports that become due meanwhile go out together."""
CHECK_SECONDS_MAX = 1.0
"""Maximum of seconds between two checks for due reports."""
CLAIMS_CHECK_SECONDS = 0.25
"""Seconds between two checks for unused claims."""
USES_PER_ROUND_MAX = 100
"""Uses by workers that one round processes: few enough that the admin listener gets its turn."""
SLEW_SECONDS = 0.010
"""The edge's clock moves towards the hub's by at most this many seconds per second."""
BACK_SECONDS = 0.5
"""If the clock is set back by more than these seconds, earlier recorded moments are dropped."""
JUMP_SECONDS = 5.0
"""If the hub's clock differs by more than these seconds, it is taken over at once."""

Key = tuple[str, int]
"""The name of a table, and the number of its file."""


class SharedTable(NamedTuple):
    """The rows of a table that are in use."""

    table: LimitTable
    hub_column: HubColumn
    rates: SharedRates
    totals: SharedTotals


class Coordinator:
    """The coordination by one supervisor. `tell` sends a message to all of its workers."""

    def __init__(self, store: Store, settings: hub_settings.Hub, tell: Callable[[FromLeader], None]) -> None:
        self._store = store
        self._settings = settings
        self._leader = Leader(store, tell)
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(60.0)
        self._tables: dict[Key, SharedTable] = {}
        """The tables that are reported to the hub; none while another supervisor does that."""
        self._pending_uses = PendingUses()
        self._seqs = itertools.count()
        self._pace = Pace(monotonic())
        self._under_way = 0
        """Reports without an answer."""
        self._was_up = False
        self._rounds = 0
        self._sleeps_until = 0.0
        """Edge time until when the loop sleeps; 0: it is awake."""
        self._rtt = 0.0
        self._answers_since = 0.0
        self._wake = asyncio.Event()
        self._is_wake_scheduled = False
        self._clock_set = False
        self._errors = 0
        self._since = monotonic()
        """Monotonic time of the coordinator's start, or of the previous hub's last answer."""
        self._tasks = Tasks()
        self._hub = self._create_hub(settings)
        if settings.is_exposed:
            self._log.warning("the hub's password can be read on the way", hub=settings.name)

    def _create_hub(self, settings: hub_settings.Hub) -> "Hub":
        from edgeproxy.hub.hub import Hub
        from edgeproxy.hub.redis import Tls

        tls = Tls.from_settings(settings.tls)
        control = self._store.control
        return Hub(
            settings.url, control.instance, self._handle_hub_change, tls, self._report_again, hosts=control.hosts
        )

    # ---- its life

    def begin(self) -> None:
        """Connect to the hub, and coordinate now, or once no other supervisor does."""
        self._running = self._tasks.start("hub", self._hub.run())
        self._tasks.start("lead once nobody else does", self._lead())

    async def _lead(self) -> None:
        await self._leader.wait_for_leadership()
        # Rows are many and long-lived, and reports in progress are short-lived. Repeated collections of all these
        # objects would block everything else.
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 10, 10_000)
        # The number of this start comes first, so a report is newer than all reports of earlier supervisors.
        self._seqs = itertools.count(self._store.control.count_start() << 32)
        self._update_tables()
        self.record_uses(self._leader.take_uses())
        self._tasks.start("limit sync", self._run())
        self._tasks.start("the hub's clock", self._follow_clock())
        self._tasks.start("claims", self._return_claims())
        await self._leader.serve_followers(self.record_uses)

    async def follow(self, settings: hub_settings.Hub) -> None:
        """Take over the settings of a new configuration."""
        if settings == self._settings:
            return
        before, self._settings = self._settings, settings
        for shared in self._list_tables():
            shared.rates.tick = settings.sync
            self._write_hosts(shared)
        self._wake.set()
        if (before.url, before.tls) != (settings.url, settings.tls):
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._errors += self._hub.errors
            self._since = max(self._since, self._hub.last_answer_at)
            self._hub = self._create_hub(settings)
            for shared in self._list_tables():
                # The cached state belongs to another hub. Until this one is reached, no request waits for it.
                shared.hub_column.write_away()
            self._handle_hub_change()
            self._running = self._tasks.start("hub", self._hub.run())

    async def end(self) -> None:
        """Stop coordinating."""
        await self._leader.end()
        await self._tasks.cancel()

    # ---- workers' reports

    def record_uses(self, message: LimitsUsed) -> None:
        """Record the rows of limits that a worker uses (edge/proxy/exchange/claim_waiter.py)."""
        if not self._leader.leads:
            self._leader.record_uses(message)
            return
        for use in message:
            self._pending_uses.add(use)
        self._wake.set()

    def _apply_uses(self, now: float) -> None:
        """Pass the workers' uses on to the tables."""
        for _ in range(min(USES_PER_ROUND_MAX, len(self._pending_uses))):
            use = self._pending_uses.pop_first()
            try:
                self._apply_use(use, now)
            except (LookupError, ValueError) as error:  # It comes from another version.
                self._log.error("what a worker says of a limit cannot be understood", said=str(use), why=repr(error))

    def _apply_use(self, use: LimitUse, now: float) -> None:
        shared = self._get_table(use.table, use.file)
        if shared is None:
            return
        if isinstance(use, RateUse):
            shared.rates.record_use(RowUse(use.row, use.generation, use.terms, use.refused), now)
        else:
            shared.totals.record_use(use.row, use.generation, use.limit, now)

    def _update_tables(self) -> None:
        """Write the number of hosts into the current tables, even before a row of them is used."""
        for name, table in self._store.limits.items():
            self._get_table(name, table.file.generation)

    def _list_tables(self) -> list[SharedTable]:
        """Return the tables that are reported to the hub, without tables that were removed since."""
        for key in [key for key, shared in self._tables.items() if shared.table.file.is_closed]:
            del self._tables[key]
        return list(self._tables.values())

    def _get_table(self, name: str, file: int) -> SharedTable | None:
        """Return the rows in use of a table; None if it has no column for the hub, or is gone."""
        shared = self._tables.get((name, file))
        if shared is None:
            table = self._store.limits[name]
            try:
                if table.file.generation != file:
                    table = LimitTable(self._store.get_file(file_name(name, file), name))
            except TableError:
                return None
            if table.hub is None:
                return None
            instance = self._store.control.instance
            shared = self._tables[name, file] = SharedTable(
                table, table.hub, SharedRates(table, instance), SharedTotals(table, instance)
            )
            shared.rates.tick = self._settings.sync
            self._write_hosts(shared)
        return shared

    # ---- the hub

    def _write_hosts(self, shared: SharedTable) -> None:
        hub, column = self._hub, shared.hub_column
        column.on_loss = self._settings.on_loss
        if hub.is_up:
            self._store.control.write_hosts(hub.hosts)
        if hub.tried or not column.is_known:
            # Otherwise the data that a previous supervisor wrote is still good.
            column.write_hosts(hub.hosts, is_away=not hub.is_up)
        shared.rates.hosts = shared.totals.hosts = hub.hosts
        shared.rates.rtt = hub.rtt

    def _report_again(self, has: "KeyFilter") -> None:
        """Report these keys again: another server of the hub has them now."""
        for shared in self._list_tables():
            shared.rates.schedule_renewal(has, self._now())
            shared.totals.schedule_renewal(has, self._now())
        self._wake.set()

    def _handle_hub_change(self) -> None:
        """Handle the loss or return of the hub, or a change in the number of hosts."""
        now, is_up = self._now(), self._hub.is_up
        for shared in self._list_tables():
            self._write_hosts(shared)
            if is_up and not self._was_up:
                shared.rates.resume()
                shared.totals.resume()
        if is_up and not self._was_up:
            self._pace.reset()
        self._was_up = is_up
        if not is_up:
            self._clock_set = False
            if self._hub.tried:
                self._hold_rows(now)
                self._wake_waiting()
        self._wake.set()

    def _hold_rows(self, now: float) -> None:
        """Limit the next rows to this host's part."""
        try:
            for shared in self._list_tables():
                shared.rates.hold_next_rows(now, self._settings.on_loss, REPORTS_PER_ROUND_MAX)
                shared.totals.hold_next_rows(self._settings.on_loss, REPORTS_PER_ROUND_MAX)
        except Exception as error:
            self._log_fault(error)

    def _log_fault(self, unforeseen: Exception) -> None:
        """Log a fault with one row, which must not stop the coordination of all others."""
        self._rare_log.error("a fault while limits were shared", repr(unforeseen), exc_info=unforeseen)

    async def _run(self) -> None:
        """Send due reports to the hub until cancelled. While it is away, limit this host to its part."""
        later = asyncio.get_running_loop().call_later
        while True:
            self._wake.clear()
            if self._hub.is_up and not self._clock_set:
                self._set_clock()  # Before any report: a wrong clock would assign it to another time.
            began, now = thread_time(), self._now()
            self._apply_uses(now)
            if self._hub.is_up:
                try:
                    self._send_reports(now)
                except Exception as error:
                    self._log_fault(error)
            elif self._hub.tried:
                self._hold_rows(now)
            self._pace.charge(thread_time() - began)
            await asyncio.sleep(ROUND_SECONDS_MIN)
            now = self._now()
            if pause := self._seconds_until_due(now):
                self._sleeps_until = now + pause
                timer = later(pause, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                self._sleeps_until = 0.0
            await asyncio.sleep(self._pace.compute_pause_seconds(monotonic()))

    def _seconds_until_due(self, now: float) -> float:
        """Return the seconds until something is due; 0 if something is due now."""
        if self._pending_uses:
            return 0.0
        kinds = [kind.find_next_due() for shared in self._list_tables() for kind in (shared.rates, shared.totals)]
        return min([CHECK_SECONDS_MAX, *[max(0.0, moment - now) for moment in kinds if moment is not None]])

    def _send_reports(self, now: float) -> None:
        """Send the reports that are due, as many as the pace allows."""
        sent = monotonic()
        room = min(REPORTS_PER_ROUND_MAX, self._pace.window - self._under_way)
        tables = self._list_tables()
        self._rounds += 1
        for number in range(len(tables)):
            # If there are too many, each table comes first in turn.
            rates, totals = tables[(self._rounds + number) % len(tables)][2:]
            rates.rtt = self._rtt
            for row, report in rates.build_reports(now, self._seqs, room) if room > 0 else ():
                room -= 1
                self._under_way += 1
                self._hub.report_rate(report).add_done_callback(
                    partial(self._apply_rate_answer, rates, row, report, sent)
                )
            for total, total_report in totals.build_reports(now, room) if room > 0 else ():
                room -= 1
                self._under_way += 1
                answered = partial(self._apply_total_answer, totals, total, sent)
                if isinstance(total_report, Period):
                    self._hub.report_period(total_report).add_done_callback(answered)
                else:
                    self._hub.report_gauge(total_report).add_done_callback(answered)

    def _record_answer(self, sent: float) -> None:
        if not self._answers_since:
            # Answers that come together are timed together.
            self._answers_since = thread_time()
            asyncio.get_running_loop().call_soon(self._charge_answers)
        now = monotonic()
        self._under_way -= 1
        self._pace.record_answer(now, now - sent, self._rtt)

    def _charge_answers(self) -> None:
        self._pace.charge(thread_time() - self._answers_since)
        self._answers_since = 0.0

    def _apply_rate_answer(
        self, rates: SharedRates, row: SharedRate, report: Report, sent: float, answer: "asyncio.Future[ReportAnswer]"
    ) -> None:
        self._record_answer(sent)
        now, is_waited_for = self._now(), True
        if answer.exception() is not None:
            rates.hold_row(row, now, self._settings.on_loss)
        else:
            is_waited_for = rates.apply_answer(row, now, report.seq, answer.result())
        # The answer has made the row due before the loop would wake.
        if row.due < self._sleeps_until:
            self._wake.set()
        # Answers that come together wake the workers once.
        if is_waited_for and not self._is_wake_scheduled:
            self._is_wake_scheduled = True
            asyncio.get_running_loop().call_soon(self._wake_waiting)

    def _apply_total_answer(
        self,
        totals: SharedTotals,
        total: SharedTotal,
        sent: float,
        answer: "asyncio.Future[PeriodTotal] | asyncio.Future[GaugeTotal]",
    ) -> None:
        self._record_answer(sent)
        if answer.exception() is not None:
            totals.hold_row(total, self._now(), self._settings.on_loss)
        else:
            totals.apply_answer(total, self._now(), answer.result())

    def _wake_waiting(self) -> None:
        """Make workers decide again on waiting requests."""
        self._is_wake_scheduled = False
        self._leader.send_to_workers(HubAnswered())

    # ---- claims

    async def _return_claims(self) -> None:
        """Return unused claims to the hub, until cancelled."""
        while True:
            await asyncio.sleep(CLAIMS_CHECK_SECONDS)
            self._rtt = self._hub.rtt
            self._update_tables()
            rows = [
                place
                for shared in self._list_tables()
                if shared.rates.has_claims
                for place in self._list_unused_claims(shared)
            ]
            if rows:
                self._leader.send_to_workers(ClaimsUnused(rows))

    def _list_unused_claims(self, shared: SharedTable) -> list[LimitRow]:
        """Return the rows whose claims workers must return. Claims of dead workers are returned here."""
        table, rates, now = shared.table, shared.rates, self._now()
        # The last column is the hub's, and no worker holds it.
        for column in set(range(table.layout.columns - 1)) - columns.list_held_columns(table.file):
            if rates.list_unsettled_rows(column):
                with columns.borrow_column(table.file, column) as is_free:
                    for row in rates.list_unsettled_rows(column) if is_free else ():
                        rates.clear_column(row, column, now)
        file = table.file.generation
        return [LimitRow(table.name, file, row, generation) for row, generation in rates.list_unused_claims(now)]

    # ---- the clock

    def _now(self) -> float:
        return monotonic() + self._store.offset

    async def _follow_clock(self) -> None:
        """Move the edge's clock towards the hub's every second, until cancelled.

        A large difference is corrected at once.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS_MAX)
            self._set_clock()

    def _set_clock(self) -> None:
        there = self._hub.offset
        if there is None:
            return
        here, target = self._store.offset, max(0.0, there - EPOCH)
        difference = target - here
        if abs(difference) > JUMP_SECONDS:
            self._log.warning("the edge's clock follows the hub's", seconds=round(difference, 3))
        elif self._clock_set:
            difference = max(-SLEW_SECONDS * CHECK_SECONDS_MAX, min(SLEW_SECONDS * CHECK_SECONDS_MAX, difference))
        self._clock_set = True
        self._store.control.write_offset(here + difference)
        if difference < -BACK_SECONDS:
            for shared in self._list_tables():
                shared.rates.restart(self._now())
                shared.totals.resume()
            self._wake.set()

    # ---- status

    def report(self) -> JsonObject:
        """Return the part of `GET /status` about the hub."""
        return self._hub.status() | {"behind_s": round(self.compute_delay_seconds(), 3)}

    def compute_delay_seconds(self) -> float:
        """Compute the delay, in seconds, of reports and of the hub's answers; before the first answer, since the
        start.
        """
        answered_at = self._hub.last_answer_at or self._since
        now = self._now()
        kinds = [kind for shared in self._list_tables() for kind in (shared.rates, shared.totals)]
        return max([monotonic() - answered_at, *[kind.compute_overdue_seconds(now) for kind in kinds]])

    def series(self) -> list[Series]:
        """Return the metrics of the coordination."""
        hub = self._hub
        return [
            ("edge_hub_up", (), (int(hub.is_up),)),
            ("edge_hub_nodes_away", (), (hub.nodes_away,)),
            ("edge_hub_functions_missing", (), (hub.functions_missing,)),
            ("edge_hub_errors_total", (), (self._errors + hub.errors,)),
            ("edge_hub_hosts", (), (hub.hosts,)),
            ("edge_limit_sync_age_seconds", (), (round(self.compute_delay_seconds()),)),
            (
                "edge_limits_shared",
                (),
                (sum(len(shared.rates) + len(shared.totals) for shared in self._list_tables()),),
            ),
        ]
