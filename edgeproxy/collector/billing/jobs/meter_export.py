"""What the collector does again and again to tell Stripe of usage: slices are fixed, sent, and held against the ledger.

One collector does it at a time. Whoever begins takes over what the one before had under way.
"""

import time
from collections.abc import Callable
from typing import Protocol

import sqlalchemy as sa

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows, slices, slicing
from edgeproxy.collector.billing.meter_export.exporter import Exporter
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents
from edgeproxy.collector.billing.meter_export.outbox import Reply
from edgeproxy.collector.billing.meter_export.slicing import Slicing, Targets
from edgeproxy.collector.billing.mismatch import Row, lasting
from edgeproxy.collector.billing.reconciliation import usage as reconcile
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import EVENT_RATE, TEST_RATE, Stripe
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.billing.stripe_sync.subscriptions import MeterSubscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter
from edgeproxy.config.collector import Settings

TEST_SHARE = 0.8
"""Of the calls that a test key may make, the share that exports take: customers who wait have the rest."""
COMPARED_SECONDS = 60 * 86400
"""Seconds back to which the ledger is held against the outbox: fewer than segments are known for."""
COMPARED_TIMES = 3
"""Times that it is held against it before a difference is reported: usage that came meanwhile is none."""


class Heard(Protocol):
    """What hears how it goes."""

    def exported(self, reply: Reply) -> None:
        """An event was sent, with this reply."""

    def aggregated(self, seconds: float) -> None:
        """Slices were fixed, which took so long."""


class Exports:
    """Tells Stripe of usage. `known` gives the configuration as it is now; `clock` is given by tests."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        known: Callable[[], Settings],
        heard: Heard,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._known = known
        self._heard = heard
        self._clock = clock
        self.events = StripeMeterEvents(stripe, clock)
        self._rate = EVENT_RATE if stripe.is_live else TEST_RATE * TEST_SHARE
        self.bucket = Bucket(self._rate, clock())
        self._adapted_at = clock()
        self._shortest: int | None = None
        """Seconds that slices have at least, for those who used something; None: not known yet."""
        self.exporter = self._new_exporter()
        self.subscriptions = MeterSubscriptions(database, stripe, known, self.events, clock)

    @property
    def of(self) -> Slicing:
        """What is known of the account that is billed."""
        return metered_segments.slicing_of(self._database, self._stripe.is_live, self._known().meters)

    def _new_exporter(self) -> Exporter:
        return Exporter(self.of, self.events, self.bucket, clock=self._clock, counted=self._heard.exported)

    async def begin(self) -> None:
        """Take over; call this once each time that the lock is had."""
        self.exporter = self._new_exporter()
        await self.exporter.begin()

    async def send(self) -> int:
        """Send what is due, unless nobody is charged now; return how many rows."""
        if not await self._is_on():
            return 0
        async with self._database.reading() as connection:
            waits = await outbox_rows.is_waiting(connection)
        if waits:
            await self._name()
        count = 0  # Also where nothing waits: its heart beats.
        while sent := await self.exporter.step():
            count += sent
            if not await self._is_on():
                break
        return count

    async def settle_doubts(self) -> int:
        """Decide on rows of which nobody knows whether they were counted; return how many are settled."""
        if not await self._is_on():
            return 0
        await self._name()
        return await self.exporter.settle_doubts()

    async def cut(self) -> int:
        """Fix the slices that are complete; return how many."""
        began, now = time.monotonic(), self._clock()
        async with self._database.reading() as connection:
            reached = await slicing.reached(connection)
            is_due = reached is None or await slicing.is_due(connection, reached, now)
        if not is_due:  # Mostly: whose slices they are is read where there are any.
            await self._adapt(now)
            return 0
        # What ended before the slices that follow, none of which is longer than a day, is in none of them.
        targets = await self.targets(None if reached is None else reached - slices.DAY)
        if not targets:
            return 0
        self._shortest = slices.length(len(targets), self._rate)
        await self._adapt(now)
        first = min(one.span.start for some in targets.values() for one in some)
        count = await slicing.fix(self.of, targets, first, now)
        if count:
            self._heard.aggregated(time.monotonic() - began)
        return count

    async def compare(self) -> None:
        """Hold the ledger against the outbox: what it lacks becomes revisions, and what differs then is reported."""
        if not (targets := await self.targets()):
            return
        rounds: list[list[Row]] = []
        while len(rounds) < COMPARED_TIMES:
            now = self._clock()
            span, rows = await slicing.compare(self.of, targets, int(now) - COMPARED_SECONDS, now)
            rounds.append(rows)
            if not any(row.difference for row in rows):
                break
        if span.start < span.end:
            async with self._database.writing() as connection:
                await discrepancies.keep(connection, "A", span, lasting(rounds), now)

    async def reconcile(self) -> int:
        """Hold what was sent against Stripe's sums, each day that is over; return how many. Raises Away."""
        async with self._database.reading() as connection:
            if not await outbox_rows.is_any(connection):
                return 0
        await self._name()
        return await reconcile.days(self._database, self.events, self._clock())

    async def targets(self, since: float | None = None) -> Targets:
        """Whose usage Stripe is told, of segments that end after a Unix second: the latest ones if none is given."""
        since = self._clock() - metered_segments.KNOWN_SECONDS if since is None else since
        async with self._database.reading() as connection:
            return await metered_segments.targets(connection, self._known().meters, since)

    async def _is_on(self) -> bool:
        billing = self._known().billing
        if billing is None or billing.mode == "off":
            return False
        async with self._database.reading() as connection:
            return (await charging.read(connection, billing)).is_on

    async def _adapt(self, now: float) -> None:
        """Have slices as long as the rate and what comes of it ask for; refusals may be over before a slice is."""
        crowded = min(self.bucket.crowded(now), now - self._adapted_at)
        quiet = min(self.bucket.quiet(now), now - self._adapted_at)
        async with self._database.reading() as connection:
            current = (await connection.execute(slicing.LENGTH)).scalar_one()
        then = slices.adapted(current, self._shortest or current, crowded, quiet)
        if then != current:
            async with self._database.writing() as connection:
                await connection.execute(sa.update(billing_exporter).values(length=then))
            self._adapted_at = now

    async def _name(self) -> None:
        """Know customers and meters by what Stripe calls them."""
        async with self._database.reading() as connection:
            known = await metered_segments.payers(connection)
        await self.events.learn(known)
