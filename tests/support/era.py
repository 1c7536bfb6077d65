"""A month with Stripe's sandbox on one clock: the test advances time and runs the collector's periodic jobs."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

from edgeproxy.collector.billing.jobs.meter_export import MeterExportJob
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.meter_export import slices
from edgeproxy.collector.billing.meter_export.outbox import Reply
from edgeproxy.collector.billing.reconciliation.payments import complete_nothing
from edgeproxy.collector.billing.stripe import customers
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.request_rates import Bucket, RequestPacer
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.database import Database
from tests.support.sold import KEY, Sold, settings


class Clocked(Protocol):
    """A sandbox with its clock, in this process or another."""

    url: str

    def control(self, path: str, said: object = None) -> Any:
        """Call a control below `/_sandbox/`."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


class Heard:
    """Ignores the results of exports."""

    def count_export(self, reply: Reply) -> None:
        """Ignore a sent event."""

    def record_slicing(self, seconds: float) -> None:
        """Ignore fixed slices."""


class Era:
    """The collector's billing jobs, run by hand."""

    def __init__(self, sandbox: Clocked, database: Database, stripe: Stripe, known: Any) -> None:
        self.sandbox = sandbox
        self.of = Sold(database, known)
        self.closing = PeriodCloseJob(database, stripe, lambda: known, complete_nothing)
        self._offset = 0.0
        self.collection = "meters"
        self.exports = MeterExportJob(database, stripe, lambda: known, Heard(), self.now)
        self.exports.bucket = Bucket(1e6, 0.0)

    def now(self) -> float:
        """Return the common time of test and sandbox."""
        return time.time() + self._offset

    def follow(self) -> None:
        """Adopt the sandbox's time, which others change too."""
        self._offset = self.sandbox.control("clock")["now"] - time.time()

    async def to(self, moment: float) -> None:
        """Let time pass up to a moment."""
        seconds = moment - self.now()
        if seconds > 0:
            await asyncio.to_thread(self.sandbox.advance, seconds)
            self._offset += seconds

    async def turn(self) -> None:
        """Run the due jobs."""
        await self.closing.step(self.now())
        await self.export()

    async def export(self) -> None:
        """Export all due usage."""
        await self.exports.subscriptions.step()
        while await self.exports.fix_slices():
            pass
        await self.exports.send_rows()
        await self.exports.resolve_doubts()

    async def turns(self, count: int, seconds: float = 61.0) -> None:
        """Run the due jobs this many times, with time between."""
        for _ in range(count):
            await self.turn()
            await self.to(self.now() + seconds)


@asynccontextmanager
async def era(
    folder: Path, url: str, sandbox: Clocked, begin: float | None, client_of: type[Stripe] = Stripe, **billing: Any
) -> AsyncIterator[Era]:
    """Plans charged by Stripe's meters, unless `collection` says otherwise, from `begin` on.

    With `begin` None the era follows the sandbox's clock, which others move too. Slices are a day long, so a month
    has few.
    """
    collection = billing.pop("collection", "meters")
    known = settings(folder, url, sandbox.url, **billing)
    assert known.billing is not None
    # A file with plans that meters cannot charge is refused. Customers may nevertheless have such plans from before.
    known = known.model_copy(update={"billing": known.billing.model_copy(update={"collection": collection})})
    assert known.billing is not None
    database = await Database.connect(url)
    stripe = client_of(known.billing.stripe, KEY)
    stripe.pace = stripe.events_pace = RequestPacer(10_000.0, 10_000.0)  # A sandbox without rates takes any.
    lengths, slices.LENGTHS = slices.LENGTHS, [slices.DAY]
    try:
        async with database.writing() as connection:
            await plan_versions.record_plans(connection, known.plans)
        await catalog.sync_catalog(stripe, known.plans)
        created = Era(sandbox, database, stripe, known)
        if begin is None:
            created.follow()
        else:
            await created.to(begin)
            await created.exports.take_over()
        # A key that Stripe has forgotten by now must not be thought to be known.
        with mock.patch.object(customers, "time", SimpleNamespace(time=created.now)):
            yield created
    finally:
        slices.LENGTHS = lengths
        await stripe.close()
        await database.close()
