"""The job that ends billing periods: it begins and rolls them, and delivers invoices and credit notes.

One collector at a time runs it. Each effect begins with a row, so that the next run continues after a crash.
"""

import time
from collections.abc import Awaitable, Callable

from edgeproxy.base import log
from edgeproxy.collector.billing.period_close.imported_starts import ImportedStarts
from edgeproxy.collector.billing.period_close.invoice_delivery import InvoiceDelivery
from edgeproxy.collector.billing.period_close.payment_retries import PaymentRetries
from edgeproxy.collector.billing.period_close.period_roll import PeriodRoll
from edgeproxy.collector.billing.period_close.threshold_invoices import ThresholdInvoices
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat, run_exclusively
from edgeproxy.config.collector.settings import CollectorSettings

JOB = "billing-closing"
LOOK_SECONDS = 2.0
"""Seconds between two rounds."""


class PeriodCloseJob:
    """Ends periods. `settings` returns the current configuration, `complete_events` applies all of Stripe's events."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        settings: Callable[[], CollectorSettings],
        complete_events: Callable[[], Awaitable[object]],
    ) -> None:
        self._database = database
        self._settings = settings
        self._imports = ImportedStarts(database, stripe, settings)
        self._roll = PeriodRoll(database, stripe, settings, complete_events)
        self._thresholds = ThresholdInvoices(database, settings)
        self._delivery = InvoiceDelivery(database, stripe, settings)
        self._retries = PaymentRetries(database, stripe)
        self._customers = StripeCustomers(database, stripe)
        self._limited_log = log.RateLimitedLog(60.0)

    async def run(self) -> None:
        """Repeat rounds until cancelled."""
        message = "invoices could not be closed, and are taken up again"

        async def work() -> object:
            return await run_exclusively(self._database, JOB, lambda: self.step(time.time()))

        await repeat(Job("period-close", LOOK_SECONDS, message, work, lock=JOB), self._limited_log)

    async def step(self, now: float) -> bool:
        """Do the work due at this Unix second. Return whether there was any."""
        billing = self._settings().billing
        if billing is None or billing.mode == "off":
            return False
        begun = await self._imports.step(now)
        rolled = await self._roll.step(now, billing)
        rolled |= await self._thresholds.step(now, billing)
        delivered = await self._delivery.step(now, billing)
        retried = await self._retries.step(now, billing)
        return await self._customers.update_payers() or retried or delivered or rolled or begun
