"""Payments of open invoices.

A declined payment is retried on the schedule of dunning, or when the customer has another payment method. A mailed
invoice is charged once it is due and the customer has a payment method. A payment under way is checked until it is paid
or declined.
"""

from edgeproxy.base import log
from edgeproxy.collector.billing.invoices import dunning, stripe_reports
from edgeproxy.collector.billing.invoices.dunning import Retry
from edgeproxy.collector.billing.period_close.collection.invoice_items import fetch_payment, pay_invoice
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Billing

PAGE = 500
"""The most payments that one step retries."""
PAUSE_SECONDS = 60
"""Seconds until the next try if Stripe did not report the result of the last one."""
NOT_CHARGED_SECONDS = 3600
"""Seconds until the next check of a customer who is not charged."""


class PaymentRetries:
    """Tries the payments of open invoices while charging is on."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, now: float, billing: Billing) -> bool:
        """Try the payments that are due at this Unix second. Return whether there were any."""
        async with self._database.reading() as connection:
            due = await dunning.list_due_invoices(connection, now, PAGE)
        if due:
            async with self._database.writing() as connection:
                await dunning.schedule_payments(connection, due, now)
        async with self._database.reading() as connection:
            retries = await dunning.list_retries(connection, now, PAGE)
        for retry in retries:
            async with self._database.reading() as connection:
                charging_state = await charging.fetch_charging(connection, billing)
            if not charging_state.is_on:
                return False
            if charging_state.bills(retry.row.name):
                await self._try_payment(retry, now, billing)
            else:
                await self._put_off(retry, now + NOT_CHARGED_SECONDS)
        return bool(retries)

    async def _try_payment(self, retry: Retry, now: float, billing: Billing) -> None:
        """Try a payment, or check one that is under way. After a crash its Idempotency-Key finds the result."""
        assert retry.row.stripe_id is not None
        try:
            key = f"{retry.row.id}_retry_{retry.retry_at}"
            if retry.is_processing:
                stripe_invoice = await fetch_payment(self._stripe, retry.row.stripe_id)
            else:
                stripe_invoice = await pay_invoice(self._stripe, retry.row.stripe_id, key)
        except StripeCallError as error:
            self._limited_log.error("a payment could not be tried, and is later", str(error))
            await self._put_off(retry, now + PAUSE_SECONDS)
            return
        async with self._database.writing() as connection:
            if "edgeproxy_refused" in stripe_invoice:
                await dunning.record_try(
                    connection, retry.row, stripe_invoice, now, billing.payment_retries, retry_at=retry.retry_at
                )
            await stripe_reports.apply_stripe_invoice(connection, stripe_invoice)

    async def _put_off(self, retry: Retry, until: float) -> None:
        async with self._database.writing() as connection:
            await dunning.put_off_retry(connection, retry, int(until))
