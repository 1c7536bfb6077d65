"""The job that books consumption, expiry and invoices, tops credits up, and sends refunds.

One collector at a time runs it.
"""

import time
from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.collector.billing.credits import consumption, credits
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.credits.top_up_purchases import TopUpPurchases
from edgeproxy.collector.billing.invoices import bookings
from edgeproxy.collector.billing.stripe.client import StripeCallError
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat, run_exclusively
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.ledger import rollup
from edgeproxy.config.collector.billing import Billing

JOB = "billing-credits"
LOOK_SECONDS = 10.0
"""Seconds between two rounds."""
LATE_DAYS = 35
"""Late usage of this many days is booked: at once if it is recorded as late, and all of it each hour."""
BOOKING_RESTS = 20.0
"""The pause after a scan of unbooked invoices or late usage, as a multiple of its duration."""
HELD_SECONDS = 60
"""A held refund without a result is sent again after this many seconds."""


class CreditsJob:
    """Books everything that is due. `billing` returns the current configuration; `refunds` sends money back."""

    def __init__(
        self,
        database: Database,
        billing: Callable[[], Billing | None],
        refunds: RefundSender | None,
        top_ups: TopUpPurchases | None = None,
    ) -> None:
        self._database = database
        self._billing = billing
        self._refunds = refunds
        self._top_ups = top_ups
        self._revised = 0.0
        self._look_at = 0.0
        """The monotonic time of the next check for late usage."""
        self._late_counts: dict[int, int] = {}
        """The additions to each closed hour at the last round."""
        self._book_at = 0.0
        """The monotonic time of the next check of invoices."""
        self._unreadable = bookings.UnreadableObjects()
        self._limited_log = log.RateLimitedLog(60.0)

    async def run(self) -> None:
        """Repeat rounds until cancelled."""
        message = "credits could not be booked, and are taken up again"

        async def work() -> object:
            return await run_exclusively(self._database, JOB, lambda: self.step(time.time()))

        await repeat(Job("credits", LOOK_SECONDS, message, work, lock=JOB), self._limited_log)

    async def step(self, now: float) -> None:
        """Do the work that is due at this Unix second."""
        billing = self._billing()
        if billing is None:
            return
        meters = get_credit_meters(billing)
        if meters is not None:
            while await consumption.book_next_hour(self._database, meters, now):
                self._revised = 0.0  # The hour may take usage of earlier hours back.
            await self._revise_days(meters, now)
            if self._top_ups is not None:
                await self._top_ups.step(billing, meters, now)
        if time.monotonic() >= self._book_at:
            began = time.monotonic()
            while await bookings.book_invoices(self._database, self._unreadable):
                began = time.monotonic()
            self._book_at = time.monotonic() + BOOKING_RESTS * (time.monotonic() - began)
        if self._refunds is not None:
            await self._send_refunds(self._refunds, now)

    async def _revise_days(self, meters: CreditMeters, now: float) -> None:
        """Book the late usage of days that had some since the last round, and after each booked hour of all days."""
        is_due, began = now - self._revised >= HOUR, time.monotonic()
        if not is_due and began < self._look_at:
            return
        today = int(now) // DAY * DAY
        days = range(today, today - LATE_DAYS * DAY, -DAY)
        async with self._database.reading() as connection:
            late_counts = await rollup.fetch_late_counts(connection, days[-1], today + DAY)
        self._look_at = time.monotonic() + BOOKING_RESTS * (time.monotonic() - began)
        grown = {hour // DAY * DAY for hour, count in late_counts.items() if count != self._late_counts.get(hour, 0)}
        await consumption.revise_days(self._database, meters, days if is_due else sorted(grown, reverse=True))
        self._late_counts = late_counts
        if is_due:
            self._revised = now

    async def _send_refunds(self, refunds: RefundSender, now: float) -> None:
        """Send refunds with an unknown result."""
        async with self._database.reading() as connection:
            unsettled = await credits.list_unsettled_refunds(connection, int(now - HELD_SECONDS) * 1000)
        for refund in unsettled:
            try:
                await refunds.send_refund(refund)
            except StripeCallError as error:
                self._limited_log.error("a refund could not be made, and is tried again", str(error), refund=refund.id)


def get_credit_meters(billing: Billing) -> CreditMeters | None:
    """Return the ledger meters for credits, or None if no credits are sold."""
    sold = billing.credits
    if sold is None:
        return None
    others = {other.currency: CreditMeters(other.meter, sold.list_costs(other.currency)) for other in sold.others}
    return CreditMeters(sold.meter, sold.list_costs(), others)
