"""Maintenance besides batch ingest: roll-ups, deletion of expired data, erasures, and alerts of due privacy requests.

The roll-ups are of hours and days. Expired data includes Stripe events and personal data of ended books. The work
consists of small steps with pauses, so that batches never wait for long. Several collectors may run it on one database
at once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from edgeproxy.base import log
from edgeproxy.collector.accounts import idempotency
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.billing.jobs.ended_books import EndedBooks
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.database.database import Database, format_reason
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.database.schema import HOUR, MINUTE
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.retention import Retention
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.privacy import erasure
from edgeproxy.collector.privacy.due_alerts import list_due_alerts
from edgeproxy.collector.privacy.erasure_list import ErasureList, record_erasures
from edgeproxy.collector.residency.arrival import drop_withdrawn
from edgeproxy.collector.traffic.limit_usage import drop_usage
from edgeproxy.collector.traffic.reports import drop_errors, drop_reports
from edgeproxy.config.collector.settings import Retention as Kept

CHECK_SECONDS = 10.0
"""Seconds between two checks for work."""
ROUND_SECONDS = 600.0
"""Seconds between two rounds of deleting expired data."""
LATE_SECONDS = 6 * 3600.0
"""Seconds between two checks for new data of erased customers."""
REST_SECONDS = 3.0
"""The pause after work, as a multiple of its duration."""


class MaintenanceJobs:
    """Rolls up and deletes until it is cancelled."""

    def __init__(
        self, database: Database, retention: Kept, metrics: Metrics, erasures: ErasureList | None = None
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._retention = Retention(database, retention)
        self._books = EndedBooks(database, retention.invoices, erasure.COLLECTOR)
        self._erasures = erasures
        self._deleted_seconds = retention.deleted
        self._events_seconds = retention.webhooks
        self._traffic_seconds = {MINUTE: retention.traffic_minutes, HOUR: retention.traffic_hours}
        self._has_erased = False
        """True if customers were erased since the last purge."""
        self._late = 0.0
        """Monotonic time of the next check for new data of erased customers."""
        self._round = 0.0
        """Monotonic time of the next round."""
        self._round_tasks: tuple[Callable[[float], Awaitable[bool | None]], ...] = (
            self._retention.begin_round,
            self._record_erasures,
            self._erase,
            self._erase_late,
            self._alert_due_requests,
            self._drop_events,
            self._drop_traffic,
            self._drop_answers,
            self._drop_withdrawn,
            self._purge_deleted,
        )
        """The tasks of a round. A task may need several steps."""
        self._due: list[Callable[[float], Awaitable[bool | None]]] = []
        """Remaining tasks of this round."""
        self._log = log.get_logger()

    async def run(self) -> None:
        """Do the work until cancelled."""
        failed = "roll-up and retention failed, and go on later"
        await repeat(Job("maintenance", CHECK_SECONDS, failed, self._run_step), log.RateLimitedLog(60.0))

    async def _run_step(self) -> Rest | None:
        """Do the next step. Return a short pause if there is more work."""
        began = time.monotonic()
        try:
            is_busy = await self.step(time.time())
        except Exception:
            self._metrics.upkeep_failures.inc()
            raise
        return Rest(REST_SECONDS * (time.monotonic() - began)) if is_busy else None

    async def step(self, now: float) -> bool:
        """Do the next step. Return False if there is no work now."""
        if not self._due and time.monotonic() >= self._round:
            self._round = time.monotonic() + ROUND_SECONDS
            self._due = list(self._round_tasks)
        failures: list[Exception] = []
        is_busy = False
        for work in (self._roll_up, self._do_due, self._drop_old, self._books.clear_next):
            try:
                is_busy = await work(now)
            except Exception as error:  # The others continue in any case.
                failures.append(error)
            if is_busy:
                break
        for failure in failures if is_busy else failures[1:]:
            self._metrics.upkeep_failures.inc()
            self._log.error("a part of roll-up and retention failed", why=format_reason(failure))
        if failures and not is_busy:
            raise failures[0]
        return is_busy

    async def _roll_up(self, now: float) -> bool:
        return await rollup.roll_up_slice(self._database, now)

    async def _drop_old(self, now: float) -> bool:
        more = await self._retention.drop_next(now)
        self._metrics.unproven.set(len(self._retention.broken))
        return more

    async def _do_due(self, now: float) -> bool:
        """Continue with the tasks of this round. A failed task is tried again in the next round."""
        while self._due:
            task = self._due.pop(0)
            if await task(now):
                self._due.insert(0, task)
                return True
        return False

    async def _erase(self, now: float) -> bool:
        """Erase some of the customers whose retention after deletion has ended. Return False if there are none."""
        if self._deleted_seconds is None:
            return False
        before = int((now - self._deleted_seconds) * 1000)
        async with self._database.reading() as connection:
            due = await erasure.list_due(connection, before)
        if not due:
            return False
        await erasure.clear_events(self._database, due, before)
        erased = await erasure.erase_due_customers(self._database, before)
        if erased:
            self._log.info("customers erased", customers=len(erased))
            self._has_erased = True
            if self._erasures is not None:
                await asyncio.to_thread(self._erasures.append, [(customer.id, now_ms()) for customer in erased])
        return bool(erased)

    async def _erase_late(self, now: float) -> None:
        """Erase new data of erased customers, every few hours."""
        if time.monotonic() < self._late:
            return
        async with self._database.reading() as connection:
            late = await erasure.list_late(connection, int(now * 1000))
        for some in late:
            cleared = await erasure.clear_events(self._database, [one.name for one in some])
            async with self._database.writing() as connection:
                counts = await erasure.erase_late_rows(connection, some)
            counts += Counter(events=cleared)
            if counts:
                self._has_erased = True
                self._log.info("rows of erased customers erased", **counts)
        self._late = time.monotonic() + LATE_SECONDS

    async def _purge_deleted(self, _: float) -> None:
        """Remove deleted data from the database's files. If that fails, the next round tries again."""
        if await self._database.purge_deleted(has_erased=self._has_erased):
            self._has_erased = False

    async def _alert_due_requests(self, now: float) -> None:
        """Alert operators of privacy requests that are due soon or overdue, once each."""
        async with self._database.reading() as connection:
            due = await list_due_alerts(connection, now)
        if due:
            async with self._database.writing() as connection:
                await raise_alerts(connection, due)

    async def _record_erasures(self, _: float) -> None:
        """Add erased customers that are missing to the list of erasures."""
        if self._erasures is not None:
            await record_erasures(self._database, self._erasures)

    async def _drop_events(self, now: float) -> bool:
        """Delete some expired events of Stripe's. Return False if there are none."""
        if self._events_seconds is None:
            return False
        async with self._database.writing() as connection:
            return bool(await receiver.drop_events(connection, int((now - self._events_seconds) * 1000)))

    async def _drop_answers(self, now: float) -> bool:
        """Delete some expired API responses. Return False if there are none."""
        async with self._database.writing() as connection:
            return bool(await idempotency.drop_answers(connection, int(now * 1000)))

    async def _drop_withdrawn(self, now: float) -> None:
        """Delete old rows of withdrawn arrivals."""
        async with self._database.writing() as connection:
            await drop_withdrawn(connection, int(now * 1000))

    async def _drop_traffic(self, now: float) -> bool:
        """Delete some expired traffic reports. Return False if there are none."""
        await drop_usage(self._database, int(now))
        for step, seconds in self._traffic_seconds.items():
            if seconds is not None and await drop_reports(self._database, step, int(now - seconds)):
                return True
        seconds = self._traffic_seconds[MINUTE]
        return seconds is not None and await drop_errors(self._database, int(now - seconds))
