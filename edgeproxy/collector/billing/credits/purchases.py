"""Books credit purchases from Stripe objects, in the state that a fetch returns.

Each function is idempotent, and accepts an object in any state. Objects that are not about credits are ignored.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.credits import credits, top_ups
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.invoices.disputes import apply_stripe_dispute, report_failed_refund
from edgeproxy.collector.billing.invoices.refund_events import enqueue_refund_event
from edgeproxy.collector.billing.invoices.unexpected_objects import UnbookedPaymentError, UnexpectedObjectError
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe.customers import CALLER
from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.currency_units import USD

PURCHASE = "checkout.session"
"""The object type of a purchase."""
CUSTOMER = "edgeproxy_credits"
"""The metadata key of a checkout session and its payment for the buying customer's id."""
TOP_UP = "edgeproxy_top_up"
"""The metadata key of an automatic purchase's payment for the purchase's id."""
REFUND = "edgeproxy_refund"
"""The key of a refund's metadata that contains our id of the held money."""
FAILED = frozenset({"failed", "canceled"})

PurchaseResult = Literal["paid", "failed", "expired"]
RESULTS: Mapping[str, PurchaseResult] = {
    "checkout.session.completed": "paid",
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "charge.failed": "failed",
    "checkout.session.expired": "expired",
}
"""The result of a purchase by the type of the event that reports it."""


REPORTED_MAX = 10_000
"""The most purchases whose report is remembered."""


def find_results(events: Collection[str], purchase: Mapping[str, object]) -> set[PurchaseResult]:
    """Return the results of a purchase that events of these types report; empty if the object is no purchase."""
    if CUSTOMER not in _get_metadata(purchase):
        return set()
    results = {RESULTS[event] for event in events if event in RESULTS}
    if TOP_UP in _get_metadata(purchase) and "charge.succeeded" in events:  # Checkout reports its own sessions.
        results.add("paid")
    return results if purchase.get("payment_status", "paid") == "paid" else results - {"paid"}


class PurchaseResults:
    """The results of purchases, each reported once.

    A payment that takes days is reported twice: by the event that ends the checkout, and by the event of the payment.
    """

    def __init__(self) -> None:
        self._paid: dict[str, None] = {}
        """The latest purchases that were reported as paid, oldest first."""

    def report(self, events: Collection[str], purchase: Mapping[str, object]) -> set[PurchaseResult]:
        """Return the results that events of these types report and that were not reported before."""
        results, id_ = find_results(events, purchase), str(purchase.get("id"))
        # Only paid purchases are remembered: a failed attempt may be followed by another one.
        if "paid" in results and id_ in self._paid:
            results = results - {"paid"}
        elif "paid" in results:
            self._paid[id_] = None
            if len(self._paid) > REPORTED_MAX:
                # The oldest, whose other event is least likely still to come.
                del self._paid[next(iter(self._paid))]
        return results


async def apply_session(connection: AsyncConnection, session: StripeObject) -> None:
    """Book a checkout session once it is paid. Raises UnexpectedObjectError."""
    customer = _get_metadata(session).get(CUSTOMER)
    if customer is None or session.get("payment_status") != "paid":
        return
    await _require_buyer(connection, customer, session, "the checkout session")
    tax = (session.get("total_details") or {}).get("amount_tax") or 0
    paid = session["amount_total"] - tax
    payment = Payment(session["id"], parse_id(session.get("payment_intent")), paid * CENT, tax * CENT)
    await credits.book_purchase(connection, customer, payment)


async def apply_charge(connection: AsyncConnection, charge: StripeObject) -> None:
    """Book an automatic purchase once it is paid, as the collector that began it may not. Raises UnexpectedObjectError.

    The money of a charge is booked by its balance transaction.
    """
    metadata = _get_metadata(charge)
    customer, purchase, intent = metadata.get(CUSTOMER), metadata.get(TOP_UP), parse_id(charge.get("payment_intent"))
    if customer is None or purchase is None or intent is None or charge.get("status") != "succeeded":
        return
    await _require_buyer(connection, customer, charge, "the charge")
    await top_ups.book_paid(connection, customer, purchase, intent, charge["amount_captured"], now_ms())


async def apply_refund(connection: AsyncConnection, refund: StripeObject) -> None:
    """Book the state of a refund, held here or made elsewhere. A failed refund of an invoice raises an alert.

    Raises UnbookedPaymentError if the refund arrives before its purchase or invoice.
    """
    status = refund.get("status")
    refund_id = _get_metadata(refund).get(REFUND)
    intent = await _find_purchase(connection, refund)
    await enqueue_refund_event(connection, refund, intent)
    # We hold the money of this refund, so only its end is booked.
    if refund_id is not None:
        if status == "succeeded" or status in FAILED:
            await credits.settle_refund(connection, refund_id, paid=status == "succeeded", refund=refund["id"])
        return
    if intent is None:
        if status in FAILED:
            await report_failed_refund(connection, refund)
        return
    if status == "succeeded":
        # Without our id, the refund was made elsewhere, so it takes money back like a dispute.
        if await credits.book_chargeback(connection, intent, refund["id"], refund["amount"] * CENT) is not None:
            await _turn_off_top_up(connection, intent)
    # A refund that failed before it took money has nothing to give back.
    elif status in FAILED and await credits.was_charged_back(connection, refund["id"]):
        await credits.book_chargeback_won(connection, intent, refund["id"], refund["amount"] * CENT)


async def apply_dispute(connection: AsyncConnection, dispute: StripeObject) -> None:
    """Book the money that a dispute has moved of a purchase, and store the dispute of a purchase or an invoice.

    An inquiry moves no money. Won money is booked once it is back. Raises UnbookedPaymentError if the dispute arrives
    before its purchase or invoice, and UnexpectedObjectError.
    """
    intent = await _find_purchase(connection, dispute)
    took_money = intent is not None and await _book_dispute(connection, intent, dispute)
    await apply_stripe_dispute(connection, dispute, intent)
    if intent is not None and took_money:  # Behind the dispute, whose row is locked first.
        await _turn_off_top_up(connection, intent)


async def _book_dispute(connection: AsyncConnection, intent: str, dispute: StripeObject) -> bool:
    """Book the money that a dispute has moved of a purchase. Return whether it took some that was not booked yet."""
    took_money = False
    for moved in dispute.get("balance_transactions") or ():
        # Movements are in the currency of the account's balance, so they show only the direction of the amount.
        if moved["amount"]:
            await _require_currency(connection, intent, dispute)
        if moved["amount"] < 0:
            booked = await credits.book_chargeback(connection, intent, dispute["id"], dispute["amount"] * CENT)
            took_money = took_money or booked is not None
        elif moved["amount"] > 0:
            await credits.book_chargeback_won(connection, intent, dispute["id"], dispute["amount"] * CENT)
    return took_money


async def _turn_off_top_up(connection: AsyncConnection, intent: str) -> None:
    """Turn automatic top-up off for the buyer of a purchase whose money went back.

    Otherwise the lower balance would buy the credits again, with the payment method of a disputed payment.
    """
    buyer = sa.select(credit_grants.c.customer).where(credit_grants.c.payment == intent)
    await top_ups.turn_off(connection, CALLER, (await connection.execute(buyer)).scalar_one(), now_ms())


APPLIERS = {
    PURCHASE: apply_session,
    "charge": apply_charge,
    "refund": apply_refund,
    "dispute": apply_dispute,
}
"""The function that applies objects of each type."""


def parse_id(reference: StripeObject | str | None) -> str | None:
    """Return the id of an object that is given by id or in full."""
    return str(reference["id"]) if isinstance(reference, Mapping) else reference


def _get_metadata(stripe_object: Mapping[str, object]) -> Mapping[str, str]:
    metadata = stripe_object.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


async def _require_buyer(connection: AsyncConnection, customer: str, payment: StripeObject, kind: str) -> None:
    """Raise UnexpectedObjectError if a payment is of no customer here, or in another currency than its credits."""
    statement = sa.select(customers.c.currency).where(customers.c.id == customer)
    row = (await connection.execute(statement)).first()
    if row is None:
        raise UnexpectedObjectError(f"{kind} {payment['id']} is of {customer}, which is no customer here")
    if payment["currency"] != (row.currency or USD):
        raise UnexpectedObjectError(
            f"{kind} {payment['id']} is in {payment['currency']}, and the customer's credits are in "
            f"{row.currency or USD}"
        )


async def _require_currency(connection: AsyncConnection, intent: str, dispute: StripeObject) -> None:
    """Raise UnexpectedObjectError if a dispute is in another currency than the credits bought by its payment."""
    owner = credit_grants.join(customers, customers.c.id == credit_grants.c.customer)
    statement = sa.select(customers.c.currency).select_from(owner).where(credit_grants.c.payment == intent)
    currency = (await connection.execute(statement)).scalar_one() or USD
    if dispute["currency"] != currency:
        raise UnexpectedObjectError(
            f"the dispute {dispute['id']} is in {dispute['currency']}, and the credits of {intent} are in {currency}"
        )


async def _find_purchase(connection: AsyncConnection, moved: StripeObject) -> str | None:
    """Return the payment intent of a refund or a dispute if it bought credits, else None.

    Raises UnbookedPaymentError if the purchase is not booked yet.
    """
    payment = moved.get("payment_intent")
    intent = parse_id(payment)
    if intent is None:
        return None
    statement = sa.select(credit_grants.c.id).where(credit_grants.c.payment == intent)
    if (await connection.execute(statement)).first() is not None:
        return intent
    # The metadata says that the payment is a purchase of ours, so its booking is still to come.
    if isinstance(payment, Mapping) and CUSTOMER in _get_metadata(payment):
        raise UnbookedPaymentError(f"{moved['id']} is about {intent}, a purchase that is not booked yet")
    return None
