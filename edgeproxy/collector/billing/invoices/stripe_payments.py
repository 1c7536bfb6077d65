"""The payments of a Stripe invoice fetched with EXPANDED: under way, or failed. Pure."""

from collections.abc import Iterator

from edgeproxy.collector.billing.stripe.client import StripeObject

EXPANDED = ("payments.data.payment.payment_intent",)
"""The fields to expand when an invoice is fetched. Only they show whether a payment is under way."""


def is_under_way(stripe_invoice: StripeObject) -> bool:
    """Return whether a payment of an invoice is under way. A bank has days to pay a debit."""
    return any(intent["status"] == "processing" for intent in _list_intents(stripe_invoice))


def find_failure(stripe_invoice: StripeObject) -> str:
    """Return the reason why the payment of an open invoice failed."""
    errors = (intent.get("last_payment_error") or {} for intent in _list_intents(stripe_invoice))
    return next((str(error["message"]) for error in errors if error.get("message")), "The payment failed.")


def _list_intents(stripe_invoice: StripeObject) -> Iterator[StripeObject]:
    for payment in (stripe_invoice.get("payments") or {}).get("data") or ():
        intent = (payment.get("payment") or {}).get("payment_intent")
        if isinstance(intent, dict):
            yield intent
