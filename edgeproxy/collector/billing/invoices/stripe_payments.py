"""The payments of a Stripe invoice fetched with EXPANDED: under way, or failed. Pure."""

from collections.abc import Iterator

from edgeproxy.collector.billing.invoices.declines import PaymentFailure, find_reason
from edgeproxy.collector.billing.stripe.client import StripeObject

EXPANDED = ("payments.data.payment.payment_intent",)
"""The fields to expand when an invoice is fetched. Only they show whether a payment is under way."""


def is_under_way(stripe_invoice: StripeObject) -> bool:
    """Return whether a payment of an invoice is under way. A bank has days to pay a debit."""
    return any(intent["status"] == "processing" for intent in _list_intents(stripe_invoice))


def find_failure(stripe_invoice: StripeObject) -> PaymentFailure:
    """Return the reason why the payment of an open invoice failed."""
    failures = (parse_failure(intent) for intent in _list_intents(stripe_invoice))
    return next((failure for failure in failures if failure is not None), PaymentFailure("The payment failed."))


def parse_failure(intent: StripeObject) -> PaymentFailure | None:
    """Return the reason why a payment intent failed, or None if it states none."""
    error = intent.get("last_payment_error") or {}
    if not error.get("message"):
        return None
    return PaymentFailure(str(error["message"]), find_reason(error.get("decline_code"), error.get("code")))


def _list_intents(stripe_invoice: StripeObject) -> Iterator[StripeObject]:
    for payment in (stripe_invoice.get("payments") or {}).get("data") or ():
        intent = (payment.get("payment") or {}).get("payment_intent")
        if isinstance(intent, dict):
            yield intent
