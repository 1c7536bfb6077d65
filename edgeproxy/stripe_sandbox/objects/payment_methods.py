"""Payment methods: Stripe's test tokens, each of which makes a card that behaves as its name says."""

from typing import NamedTuple

from edgeproxy.stripe_sandbox.refusal import ApiError, invalid_request, no_such_object
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id


class Card(NamedTuple):
    """The behaviour of a card."""

    brand: str
    last4: str
    declined: str | None = None
    """Code with which its bank declines."""
    authenticates: bool = False
    """Whether its owner has to authenticate."""
    at_once: bool = False
    """Whether it cannot even be attached."""
    disputes: bool = False
    """Whether its owner disputes each payment, as fraudulent."""


CARDS = {
    "pm_card_visa": Card("visa", "4242"),
    "pm_card_visa_debit": Card("visa", "5556"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_chargeCustomerFail": Card("visa", "0341", "generic_decline"),
    "pm_card_visa_chargeDeclined": Card("visa", "0002", "generic_decline", at_once=True),
    "pm_card_chargeDeclined": Card("visa", "0002", "generic_decline", at_once=True),
    "pm_card_visa_chargeDeclinedInsufficientFunds": Card("visa", "9995", "insufficient_funds", at_once=True),
    "pm_card_chargeDeclinedInsufficientFunds": Card("visa", "9995", "insufficient_funds", at_once=True),
    "pm_card_visa_chargeDeclinedLostCard": Card("visa", "9987", "lost_card", at_once=True),
    "pm_card_visa_chargeDeclinedStolenCard": Card("visa", "9979", "stolen_card", at_once=True),
    "pm_card_chargeDeclinedFraudulent": Card("visa", "0019", "fraudulent", at_once=True),
    "pm_card_chargeDeclinedExpiredCard": Card("visa", "0069", "expired_card", at_once=True),
    "pm_card_chargeDeclinedIncorrectCvc": Card("visa", "0127", "incorrect_cvc", at_once=True),
    "pm_card_chargeDeclinedProcessingError": Card("visa", "0119", "processing_error", at_once=True),
    "pm_card_createDispute": Card("visa", "0259", disputes=True),
    "pm_card_authenticationRequired": Card("visa", "3155", authenticates=True),
    "pm_card_threeDSecure2Required": Card("visa", "3220", authenticates=True),
}
"""Stripe's test tokens that the sandbox knows."""
NUMBERS = {
    "4242424242424242": "pm_card_visa",
    "4000056655665556": "pm_card_visa_debit",
    "5555555555554444": "pm_card_mastercard",
    "378282246310005": "pm_card_amex",
    "4000000000000341": "pm_card_chargeCustomerFail",
    "4000000000000002": "pm_card_visa_chargeDeclined",
    "4000000000009995": "pm_card_visa_chargeDeclinedInsufficientFunds",
    "4000000000009987": "pm_card_visa_chargeDeclinedLostCard",
    "4000000000009979": "pm_card_visa_chargeDeclinedStolenCard",
    "4100000000000019": "pm_card_chargeDeclinedFraudulent",
    "4000000000000069": "pm_card_chargeDeclinedExpiredCard",
    "4000000000000127": "pm_card_chargeDeclinedIncorrectCvc",
    "4000000000000119": "pm_card_chargeDeclinedProcessingError",
    "4000000000000259": "pm_card_createDispute",
    "4000002500003155": "pm_card_authenticationRequired",
    "4000000000003220": "pm_card_threeDSecure2Required",
}
"""The tokens of Stripe's test cards by their numbers, which its hosted pages take."""
OWN_CODES = ("expired_card", "incorrect_cvc", "processing_error")
"""Declines whose code is their own, and not `card_declined`."""
MESSAGES = {
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}


def get_card(method: Body) -> Card:
    """Return the card of a payment method."""
    return CARDS[method["_token"]]


def get_method(tx: Transaction, id: str, param: str) -> Body:
    """Return a payment method by its id, or by a test token, which creates one."""
    if id in CARDS:
        card = CARDS[id]
        body: Body = {
            "id": generate_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "card": {"brand": card.brand, "last4": card.last4, "exp_month": 12, "exp_year": 2040, "country": "US"},
            "created": tx.now,
            "customer": None,
            "livemode": tx.live,
            "metadata": {},
            "type": "card",
            "_token": id,
        }
        return tx.insert(body)
    method = tx.find("payment_method", id)
    if method is None:
        raise no_such_object("PaymentMethod", id, param)
    return method


def attach_method(tx: Transaction, id: str, customer: str, param: str) -> Body:
    """Attach a payment method to a customer."""
    if id in CARDS:
        for attached in tx.all("payment_method", customer=customer, _token=id):
            return attached
    method = get_method(tx, id, param)
    if method["customer"] is None:
        if get_card(method).at_once:
            raise decline_error(get_card(method))
        method["customer"] = customer
        tx.save(method)
        tx.record_event("payment_method.attached", method)
    elif method["customer"] != customer:
        raise invalid_request("The payment method does not belong to this customer.", param)
    return method


def decline_error(card: Card, charge: str | None = None) -> ApiError:
    """Build the refusal with which a bank declines."""
    why = card.declined or "generic_decline"
    code = why if why in OWN_CODES else "card_declined"
    message = MESSAGES.get(why, "Your card was declined.")
    return ApiError(402, message, kind="card_error", code=code, decline_code=why, commits=True, charge=charge)
