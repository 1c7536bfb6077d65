"""Automatic purchases: begun by the balance, paid with the saved payment method, and booked once.

A purchase is recorded before it is sent. Its id is in the metadata of Stripe's payment intent, and begins the
Idempotency-Key. So after a crash or a lost answer the payment is found at Stripe, or made once.
"""

import time
from typing import NamedTuple

import orjson

from edgeproxy.base import log
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.billing.credits import balances, checkout, top_ups
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.purchases import CUSTOMER, TOP_UP
from edgeproxy.collector.billing.credits.top_up_decision import ON, TopUp, decide_purchase
from edgeproxy.collector.billing.invoices.declines import DeclineReason, PaymentFailure, find_reason
from edgeproxy.collector.billing.invoices.stripe_payments import parse_failure
from edgeproxy.collector.billing.journal.postings import CENT, CREDIT
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import CLOCK_SECONDS, find_payment_method, find_stripe_id
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import USD

PAGE = 500
"""The most customers whose step is done in one round."""
ROUND_SECONDS = 20.0
"""Seconds after which a round leaves the other customers to the next one."""
PAUSE_SECONDS = 60
"""Seconds until a failed step is repeated."""
PROCESSING_SECONDS = 600
"""Seconds until the next check of a payment that takes days, for example a debit."""
UNKNOWN = frozenset({CallOutcome.FAILED, CallOutcome.REUSED})
"""Outcomes that Stripe repeats for an unchanged Idempotency-Key."""
UNPAID = frozenset({"requires_action", "requires_confirmation", "requires_payment_method", "requires_capture"})
"""The states of a payment intent that can still be paid."""
NO_PAGE = {"enabled": True, "allow_redirects": "never"}
"""Payment methods that need a page are not used, as there is no customer to see it."""
NO_METHOD = PaymentFailure("there is no saved payment method", DeclineReason.NO_METHOD)
NO_TAX_ID = PaymentFailure("a business needs a tax id that is valid", DeclineReason.NO_TAX_ID)


class Buyer(NamedTuple):
    """A customer whose credits are topped up."""

    row: CustomerRow
    stripe_id: str | None

    @property
    def currency(self) -> str:
        """The currency of its credits."""
        return self.row.currency or USD

    @property
    def may_buy(self) -> bool:
        """False for a customer who is paused, is being deleted, or has moved away."""
        stays = self.row.deleting_since is None and self.row.erased_at is None
        return stays and not {"paused", "moved"} & orjson.loads(self.row.settings).keys()


class TopUpPurchases:
    """Takes the due steps of automatic top-up while charging is on."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._tries: dict[str, int] = {}
        """The Idempotency-Keys of pending purchases that would only repeat a failure."""
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, billing: Billing, meters: CreditMeters, now: float) -> None:
        """Take the steps that are due at this Unix second.

        Usage is booked and refunds are sent by the same job. So a round is short, and ends with the first failure: a
        call without an answer takes more than a minute, and the next one would wait as long.
        """
        ends_at = time.monotonic() + ROUND_SECONDS
        async with self._database.reading() as connection:
            due = await top_ups.list_due(connection, round(now * 1000), PAGE)
        for top_up in due:
            async with self._database.reading() as connection:
                # Asked before each purchase, because operators stop charging when something is wrong.
                charging_state = await charging.fetch_charging(connection, billing)
            if not charging_state.is_on:
                return
            failure = "an automatic top-up could not be done, and is tried again"
            work = self._take_step(top_up.customer, billing, meters, now)
            if not await run_guarded(self._limited_log, failure, work, StripeCallError):
                await self._put_off(top_up, now, PAUSE_SECONDS)
                return
            # The other steps stay due, the longest due first.
            if time.monotonic() >= ends_at:
                return

    async def _take_step(self, customer: str, billing: Billing, meters: CreditMeters, now: float) -> None:
        async with self._database.reading(whole=True) as connection:
            # A person or an event of Stripe may have changed the row during the steps before this one.
            top_up = await top_ups.find_top_up(connection, customer)
            if top_up is None or top_up.due_at is None or top_up.due_at > round(now * 1000):
                return
            row = await customers.get_row(connection, customer)
            buyer = Buyer(row, await find_stripe_id(connection, row.id))
            usage = await balances.fetch_credit_usage(connection, meters, [row.name])
        if top_up.purchase is not None:
            await self._settle(buyer, top_up, billing, now)
            return
        left = usage[row.name].left if row.name in usage else 0
        bounds = find_bounds(billing, buyer)
        decision = decide_purchase(top_up, left, round(now * 1000), bounds)
        async with self._database.writing() as connection:
            if not decision.buys:
                await top_ups.set_due(connection, top_up, decision.due_at)
                return
            # The purchase is on disk before Stripe is called. If the collector dies in between, `_settle` finds it.
            begun = await top_ups.begin(connection, top_up, f"{top_ups.PURCHASE}{generate_id()}", round(now * 1000))
        if begun is not None:
            await self._pay(buyer, begun, billing, now)

    async def _settle(self, buyer: Buyer, top_up: TopUp, billing: Billing, now: float) -> None:
        """Book the payment of a purchase that was begun before, or make it if Stripe has none. Raises StripeCallError.

        It is given up instead if the customer can no longer buy.
        """
        intent = None if buyer.stripe_id is None else await self._find_intent(buyer.stripe_id, top_up)
        if intent is not None:
            await self._apply(buyer, top_up, intent, now)
        elif top_up.state != ON or find_bounds(billing, buyer) is None:
            async with self._database.writing() as connection:
                await top_ups.drop(connection, top_up, round(now * 1000))
        else:
            await self._pay(buyer, top_up, billing, now)

    async def _find_intent(self, stripe_id: str, top_up: TopUp) -> StripeObject | None:
        """Return the payment intent of a pending purchase, or None. Raises StripeCallError."""
        # Stripe's search by metadata lags behind, so the customer's recent payments are listed. Stripe's clock may
        # differ from ours.
        created = {"gte": top_up.begun_at // 1000 - CLOCK_SECONDS}
        intents = await self._stripe.list_all("v1.payment_intents.list", customer=stripe_id, created=created)
        return next(
            (intent for intent in intents if (intent.get("metadata") or {}).get(TOP_UP) == top_up.purchase), None
        )

    async def _pay(self, buyer: Buyer, top_up: TopUp, billing: Billing, now: float) -> None:
        """Pay a purchase that Stripe does not have yet. Raises StripeCallError if the result is unknown."""
        purchase = str(top_up.purchase)
        try:
            method, obstacle = await find_method(self._stripe, buyer, billing)
            if obstacle is not None:
                await self._decline(buyer, top_up, obstacle, now)
                return
            intent = await self._stripe.call(
                "v1.payment_intents.create",
                # After a lost answer the key stays, so that the repeated call cannot charge twice.
                key=f"{purchase}_{self._tries.get(purchase, 0)}",
                amount=top_up.purchase_amount // CENT,
                currency=buyer.currency,
                customer=buyer.stripe_id,
                payment_method=method,
                confirm=True,
                off_session=True,
                automatic_payment_methods=NO_PAGE,
                description=f"{top_up.purchase_amount // CREDIT:,} credits",
                metadata={CUSTOMER: buyer.row.id, TOP_UP: purchase},
            )
        except StripeCallError as error:
            if error.outcome in UNKNOWN:
                self._tries[purchase] = self._tries.get(purchase, 0) + 1
            # The purchase stays pending, and the next step asks Stripe: this call may have charged the customer, or
            # Stripe may take a repeated one.
            if error.outcome is not CallOutcome.REFUSED:
                raise
            failure = PaymentFailure(error.message, find_reason(error.decline_code, error.code))
            await self._decline(buyer, top_up, failure, now)
        else:
            await self._apply(buyer, top_up, intent, now)

    async def _apply(self, buyer: Buyer, top_up: TopUp, intent: StripeObject, now: float) -> None:
        """Book the state of a payment intent."""
        if intent["status"] == "processing":
            await self._put_off(top_up, now, PROCESSING_SECONDS)
            return
        if intent["status"] in UNPAID:  # A payment that is declined here must not be made later, besides the next one.
            intent = await self._stripe.call("v1.payment_intents.cancel", intent["id"])
        if intent["status"] != "succeeded":
            failure = parse_failure(intent) or PaymentFailure(f"the payment is {intent['status']}")
            await self._decline(buyer, top_up, failure, now)
            return
        paid = (buyer.row.id, str(top_up.purchase), intent["id"], intent["amount_received"])
        async with self._database.writing() as connection:
            await top_ups.book_paid(connection, *paid, round(now * 1000))
        self._tries.pop(str(top_up.purchase), None)

    async def _decline(self, buyer: Buyer, top_up: TopUp, failure: PaymentFailure, now: float) -> None:
        async with self._database.writing() as connection:
            await top_ups.record_declined(connection, buyer.row, top_up, failure, round(now * 1000), buyer.currency)
        self._tries.pop(str(top_up.purchase), None)

    async def _put_off(self, top_up: TopUp, now: float, seconds: int) -> None:
        async with self._database.writing() as connection:
            await top_ups.put_off(connection, top_up.customer, round(now * 1000), round((now + seconds) * 1000))


def find_bounds(billing: Billing, buyer: Buyer) -> tuple[int, int] | None:
    """Return the smallest and the largest purchase of a customer in millicredits, or None if it cannot buy now.

    Stripe computes the tax of checkouts and invoices alone, so credits are not topped up while Stripe computes the tax.
    """
    terms = billing.credits
    if terms is None or not billing.purchase or billing.tax.stripe_tax or not buyer.may_buy:
        return None
    if not terms.list_packages(buyer.currency):
        return None
    least, most = terms.find_bounds(buyer.currency)
    return least * CENT, most * CENT


async def find_method(stripe: Stripe, buyer: Buyer, billing: Billing) -> tuple[str | None, PaymentFailure | None]:
    """Return the payment method for a purchase, and the reason why it cannot be paid, or None.

    Raises StripeCallError.
    """
    method = None
    if buyer.stripe_id is not None:
        method = find_payment_method(await stripe.call("v1.customers.retrieve", buyer.stripe_id))
    if buyer.stripe_id is None or method is None:
        return None, NO_METHOD
    needs_tax_id = billing.tax.business_id_required and customers.is_business(buyer.row)
    if needs_tax_id and not await checkout.has_tax_id(stripe, buyer.stripe_id):
        return method, NO_TAX_ID
    return method, None
