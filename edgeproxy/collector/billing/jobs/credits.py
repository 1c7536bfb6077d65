"""The run that books what was used of credits and what became of invoices, and has refunds go back.

One collector at a time does it; whatever is killed meanwhile is taken up by the next.
"""

import time
from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.collector.billing.credits import consumption, credits
from edgeproxy.collector.billing.credits.consumption import Meters
from edgeproxy.collector.billing.credits.refunds import Refunds
from edgeproxy.collector.billing.invoices import bookings
from edgeproxy.collector.billing.stripe.client import StripeFailure
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import do_alone, repeat
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.config.billing import Billing

JOB = "billing-credits"
LOOK_SECONDS = 10.0
"""Seconds between two looks for something to do."""
LATE_DAYS = 35
"""Days for which late usage is looked for, each hour."""
BOOKING_RESTS = 20.0
"""All invoices are looked at for what is not booked: not again for so many times as long as the last look took."""
HELD_SECONDS = 60
"""Seconds after which a refund is taken up whose fate nobody has told."""


class CreditRun:
    """Does what there is to do; `billing` says what is configured now, `refunds` has money go back."""

    def __init__(self, database: Database, billing: Callable[[], Billing | None], refunds: Refunds | None) -> None:
        self._database = database
        self._billing = billing
        self._refunds = refunds
        self._revised = 0.0
        self._book_at = 0.0
        """When invoices are looked at again, of the monotonic clock."""
        self._seldom = log.Seldom(60.0)

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        failed = "credits could not be booked, and are taken up again"

        async def work() -> None:
            await do_alone(self._database, JOB, lambda: self.step(time.time()))

        await repeat(LOOK_SECONDS, self._seldom, failed, work)

    async def step(self, now: float) -> None:
        """Do what is due at this Unix second."""
        billing = self._billing()
        if billing is None:
            return
        meters = meters_of(billing)
        if meters is not None:
            while await consumption.step(self._database, meters, now):
                pass
            if now - self._revised >= HOUR:
                self._revised = now
                today = int(now) // DAY * DAY
                for day in range(today, today - LATE_DAYS * DAY, -DAY):
                    await consumption.revise(self._database, meters, day)
        if time.monotonic() >= self._book_at:
            began = time.monotonic()
            while await bookings.step(self._database):
                began = time.monotonic()
            self._book_at = time.monotonic() + BOOKING_RESTS * (time.monotonic() - began)
        if self._refunds is not None:
            await self._send(self._refunds, now)

    async def _send(self, refunds: Refunds, now: float) -> None:
        """Take up refunds that nobody has told the fate of."""
        async with self._database.reading() as connection:
            held = await credits.unsettled(connection, int(now - HELD_SECONDS) * 1000)
        for one in held:
            try:
                await refunds.send(one)
            except StripeFailure as failure:
                self._seldom.error("a refund could not be made, and is tried again", str(failure), refund=one.id)


def meters_of(billing: Billing) -> Meters | None:
    """What is read of the ledger; None where no credits are sold."""
    return None if billing.credits is None else Meters(billing.credits.meter, billing.credits.cogs)
