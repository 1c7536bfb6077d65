"""The job that exports usage to Stripe's meters: it fixes slices, sends them, and compares them with the ledger.

One collector at a time runs it. A new one takes over the work of the previous one.
"""

import time
from collections.abc import Callable
from typing import Protocol

import sqlalchemy as sa

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows, slices, slicing
from edgeproxy.collector.billing.meter_export.exporter import MeterExporter
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.outbox import Reply
from edgeproxy.collector.billing.meter_export.slicing import Slicing, Targets
from edgeproxy.collector.billing.mismatch import Comparison, select_lasting
from edgeproxy.collector.billing.reconciliation import usage as usage_reconciliation
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import EVENT_RATE, TEST_RATE, Stripe
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.billing.stripe_sync.subscriptions import MeterSubscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter
from edgeproxy.config.collector.settings import CollectorSettings

TEST_SHARE = 0.8
"""The share of a test key's calls for exports. The rest is for waiting customers."""
COMPARED_SECONDS = 60 * 86400
"""Comparisons of the ledger with the outbox go back this many seconds: fewer than segments are read for."""
COMPARED_TIMES = 3
"""The number of comparisons before a difference is reported, because usage may arrive during a comparison."""


class ExportObserver(Protocol):
    """Receives the figures of the export."""

    def count_export(self, reply: Reply) -> None:
        """Count a sent event with this reply."""

    def record_slicing(self, seconds: float) -> None:
        """Record the seconds that fixing slices took."""


class MeterExportJob:
    """Exports usage. `settings` returns the current configuration. Tests pass `clock`."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        settings: Callable[[], CollectorSettings],
        observer: ExportObserver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self.events = StripeMeterEvents(stripe, clock)
        self._rate = EVENT_RATE if stripe.is_live else TEST_RATE * TEST_SHARE
        self.bucket = Bucket(self._rate, clock())
        self._adapted_at = clock()
        self._shortest: int | None = None
        """The shortest allowed slice in seconds for the number of active pairs; None if unknown."""
        self.exporter = self._create_exporter()
        self.subscriptions = MeterSubscriptions(database, stripe, settings, self.events, clock)

    @property
    def slicing(self) -> Slicing:
        """The billed account, with the terms that slicing needs."""
        return metered_segments.build_slicing(self._database, self._stripe.is_live, self._settings().meters)

    def _create_exporter(self) -> MeterExporter:
        return MeterExporter(
            self.slicing, self.events, self.bucket, clock=self._clock, on_reply=self._observer.count_export
        )

    async def take_over(self) -> None:
        """Take over the export. Call this once each time that the lock is acquired."""
        self.exporter = self._create_exporter()
        await self.exporter.take_over()

    async def send_rows(self) -> int:
        """Send the due rows unless charging is off, and return their number."""
        if not await self._is_charging():
            return 0
        async with self._database.reading() as connection:
            waits = await outbox_rows.is_waiting(connection)
        # Without waiting rows no name is needed, so Stripe is not asked.
        if waits:
            await self._learn_names()
        count = 0  # A step also runs without waiting rows, to write the heartbeat.
        while sent := await self.exporter.step():
            count += sent
            if not await self._is_charging():
                break
        return count

    async def resolve_doubts(self) -> int:
        """Decide on rows that may have been counted, and return the number of settled ones."""
        if not await self._is_charging():
            return 0
        await self._learn_names()
        return await self.exporter.resolve_doubts()

    async def fix_slices(self) -> int:
        """Fix the complete slices, and return their number."""
        began, now = time.monotonic(), self._clock()
        async with self._database.reading() as connection:
            reached = await slicing.find_reached(connection)
            is_due = reached is None or await slicing.is_due(connection, reached, now)
        if not is_due:  # The usual case. The targets are read only for due slices.
            await self._adapt_slice_length(now)
            return 0
        # A slice is at most a day long, so targets that ended earlier are in none of the next slices.
        targets = await self.fetch_targets(None if reached is None else reached - slices.DAY)
        if not targets:
            return 0
        self._shortest = slices.choose_length(len(targets), self._rate)
        await self._adapt_slice_length(now)
        first = min(segment.span.start for segments in targets.values() for segment in segments)
        count = await slicing.fix_slices(self.slicing, targets, first, now)
        if count:
            self._observer.record_slicing(time.monotonic() - began)
        return count

    async def compare_outbox(self) -> None:
        """Compare the ledger with the outbox. Missing usage becomes revisions; remaining differences are reported."""
        if not (targets := await self.fetch_targets()):
            return
        rounds: list[list[Comparison]] = []
        while len(rounds) < COMPARED_TIMES:
            now = self._clock()
            span, rows = await slicing.compare_with_ledger(self.slicing, targets, int(now) - COMPARED_SECONDS, now)
            rounds.append(rows)
            if not any(row.difference for row in rows):
                break
        if span.start < span.end:
            async with self._database.writing() as connection:
                await discrepancies.record_reconciliation(connection, "A", span, select_lasting(rounds), now)

    async def reconcile_days(self) -> int:
        """Compare the sent rows with Stripe's sums for each past day. Return the number of days.

        Raises MeterEventsUnavailableError.
        """
        async with self._database.reading() as connection:
            if not await outbox_rows.has_rows(connection):
                return 0
        await self._learn_names()
        return await usage_reconciliation.reconcile_days(self._database, self.events, self._clock())

    async def fetch_targets(self, since: float | None = None) -> Targets:
        """Return the customers and meters whose usage is exported, with segments that end after a Unix second.

        By default these are the latest segments.
        """
        since = self._clock() - metered_segments.KNOWN_SECONDS if since is None else since
        async with self._database.reading() as connection:
            return await metered_segments.fetch_targets(connection, self._settings().meters, since)

    async def _is_charging(self) -> bool:
        billing = self._settings().billing
        if billing is None or billing.mode == "off":
            return False
        async with self._database.reading() as connection:
            return (await charging.fetch_charging(connection, billing)).is_on

    async def _adapt_slice_length(self, now: float) -> None:
        """Adapt the length of slices to the rate and to refusals."""
        crowded = min(self.bucket.crowded_seconds(now), now - self._adapted_at)
        quiet = min(self.bucket.quiet_seconds(now), now - self._adapted_at)
        async with self._database.reading() as connection:
            current = (await connection.execute(slicing.LENGTH)).scalar_one()
        adapted = slices.adapt_length(current, self._shortest or current, crowded, quiet)
        if adapted != current:
            async with self._database.writing() as connection:
                await connection.execute(sa.update(billing_exporter).values(length=adapted))
            self._adapted_at = now

    async def _learn_names(self) -> None:
        """Read Stripe's ids of customers and meters."""
        async with self._database.reading() as connection:
            customers = await metered_segments.fetch_stripe_ids(connection)
        await self.events.learn_names(customers)
