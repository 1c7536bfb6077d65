"""Stripe's test cards, by token and by number: each behaves as its name says. Pure."""

import hashlib
from typing import Literal, NamedTuple

from stripe_sandbox.refusal import ApiError
from stripe_sandbox.transaction import Body

Authentication = Literal["never", "always", "until_set_up", "on_session"]
"""When the owner of a card must authenticate (3D Secure).

`until_set_up`: off session until it is set up, and always on session. `on_session`: only on session.
"""


class Card(NamedTuple):
    """The behaviour of a card."""

    number: str
    brand: str = "visa"
    declined: str | None = None
    """The code of the bank's decline."""
    attaches: bool = True
    """The card can be attached to a customer."""
    authentication: Authentication = "never"
    dispute: str | None = None
    """The reason of the owner's dispute of each payment."""
    refund: Literal["succeeded", "pending", "failed"] = "succeeded"
    """The result of its refunds: `pending` ones succeed later, `failed` ones fail later."""
    funding: Literal["credit", "debit", "prepaid"] = "credit"
    country: str = "US"
    available: bool = False
    """Its payments are available at once."""


CARDS = {
    "pm_card_visa": Card("4242424242424242"),
    "pm_card_visa_debit": Card("4000056655665556", funding="debit"),
    "pm_card_mastercard": Card("5555555555554444", "mastercard"),
    "pm_card_mastercard_debit": Card("5200828282828210", "mastercard", funding="debit"),
    "pm_card_mastercard_prepaid": Card("5105105105105100", "mastercard", funding="prepaid"),
    "pm_card_amex": Card("371449635398431", "amex"),
    "pm_card_discover": Card("6011111111111117", "discover"),
    "pm_card_diners": Card("3056930009020004", "diners"),
    "pm_card_jcb": Card("3566002020360505", "jcb"),
    "pm_card_unionpay": Card("6200000000000005", "unionpay"),
    "pm_card_us": Card("4242424242424242"),
    "pm_card_de": Card("4000002760000016", country="DE"),
    "pm_card_fr": Card("4000002500000003", country="FR"),
    "pm_card_gb": Card("4000008260000000", country="GB"),
    "pm_card_nl": Card("4000005280000002", country="NL"),
    "pm_card_bypassPending": Card("4000000000000077", available=True),
    "pm_card_chargeCustomerFail": Card("4000000000000341", declined="generic_decline"),
    "pm_card_visa_chargeDeclined": Card("4000000000000002", declined="generic_decline", attaches=False),
    "pm_card_chargeDeclined": Card("4000000000000002", declined="generic_decline", attaches=False),
    "pm_card_visa_chargeDeclinedInsufficientFunds": Card(
        "4000000000009995", declined="insufficient_funds", attaches=False
    ),
    "pm_card_chargeDeclinedInsufficientFunds": Card("4000000000009995", declined="insufficient_funds", attaches=False),
    "pm_card_visa_chargeDeclinedLostCard": Card("4000000000009987", declined="lost_card", attaches=False),
    "pm_card_visa_chargeDeclinedStolenCard": Card("4000000000009979", declined="stolen_card", attaches=False),
    "pm_card_chargeDeclinedFraudulent": Card("4100000000000019", declined="fraudulent", attaches=False),
    "pm_card_radarBlock": Card("4100000000000019", declined="fraudulent", attaches=False),
    "pm_card_chargeDeclinedExpiredCard": Card("4000000000000069", declined="expired_card", attaches=False),
    "pm_card_chargeDeclinedIncorrectCvc": Card("4000000000000127", declined="incorrect_cvc", attaches=False),
    "pm_card_chargeDeclinedProcessingError": Card("4000000000000119", declined="processing_error", attaches=False),
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": Card(
        "4000000000006975", declined="card_velocity_exceeded", attaches=False
    ),
    "pm_card_createDispute": Card("4000000000000259", dispute="fraudulent"),
    "pm_card_createDisputeProductNotReceived": Card("4000000000002685", dispute="product_not_received"),
    "pm_card_pendingRefund": Card("4000000000007726", refund="pending"),
    "pm_card_refundFail": Card("4000000000005126", refund="failed"),
    "pm_card_authenticationRequiredOnSetup": Card("4000002500003155", authentication="until_set_up"),
    "pm_card_authenticationRequired": Card("4000002760003184", authentication="always"),
    "pm_card_authenticationRequiredSetupForOffSession": Card("4000003800000446", authentication="on_session"),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        "4000008260003178", declined="insufficient_funds", authentication="on_session"
    ),
    "pm_card_threeDSecure2Required": Card("4000000000003220", authentication="always"),
    "pm_card_threeDSecureRequired": Card("4000000000003063", authentication="always"),
    "pm_card_threeDSecureRequiredChargeDeclined": Card(
        "4000008400001629", declined="generic_decline", authentication="always"
    ),
    "pm_card_threeDSecureOptional": Card("4000000000003055"),
}
"""Stripe's test cards that the sandbox knows, by the tokens that stand for ways to pay."""
NUMBERS = {card.number: token for token, card in reversed(CARDS.items())} | {
    "378282246310005": "pm_card_amex",
    "2223003122003222": "pm_card_mastercard",
    "6011000990139424": "pm_card_discover",
}
"""The tokens of Stripe's test cards by their numbers."""
OWN_CODES = ("expired_card", "incorrect_cvc", "processing_error", "authentication_required")
"""Declines whose code is their own, and not `card_declined`."""
MESSAGES = {
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "card_velocity_exceeded": "Your card was declined for making repeated attempts too frequently or exceeding its "
    "amount limit.",
    "insufficient_funds": "Your card has insufficient funds.",
    "expired_card": "Your card has expired.",
    "incorrect_cvc": "Your card's security code is incorrect.",
    "processing_error": "An error occurred while processing your card. Try again in a little bit.",
}
YEARS_MAX = 50
"""The most years that a card is valid."""


def find_token(id: str) -> str | None:
    """Find the token of a test card: by itself, as a `tok_…` of the older API, or by a card's number."""
    if id.startswith("tok_"):
        id = "pm_card_" + id.removeprefix("tok_")
    return id if id in CARDS else NUMBERS.get(id)


def build_decline(why: str | None) -> ApiError:
    """Build the refusal of a declining bank."""
    why = why or "generic_decline"
    code = why if why in OWN_CODES else "card_declined"
    message = MESSAGES.get(why, "Your card was declined.")
    return ApiError(402, message, kind="card_error", code=code, decline_code=why, commits=True)


def check_card(number: str, exp_month: int, exp_year: int, cvc: str | None, year: int, month: int) -> str:
    """Check an entered card in this month; return the token of the test card with its number.

    Raises the refusals of Stripe's test mode, with the wrong part of the card as `param`.
    """
    digits = number.replace(" ", "").replace("-", "")
    token = NUMBERS.get(digits)
    if not digits.isdecimal() or not 12 <= len(digits) <= 19 or not _has_check_digit(digits):
        raise _build_card_error("incorrect_number", "Your card number is incorrect.", "number")
    if not 1 <= exp_month <= 12:
        raise _build_card_error("invalid_expiry_month", "Your card's expiration month is invalid.", "exp_month")
    whole_year = exp_year + 2000 if exp_year < 100 else exp_year
    if not year <= whole_year <= year + YEARS_MAX:
        raise _build_card_error("invalid_expiry_year", "Your card's expiration year is invalid.", "exp_year")
    if (whole_year, exp_month) < (year, month):
        raise _build_card_error("invalid_expiry_month", "Your card's expiration month is invalid.", "exp_month")
    if cvc is not None and (not cvc.isdecimal() or len(cvc) not in (3, 4)):
        raise _build_card_error("invalid_cvc", "Your card's security code is invalid.", "cvc")
    if token is None:
        raise ApiError(
            402,
            "Your card was declined. Your request was in test mode, but used a non test (live) card. For a list of "
            "valid test cards, visit: https://stripe.com/docs/testing.",
            kind="card_error",
            code="card_declined",
            decline_code="test_mode_live_card",
            param="number",
        )
    return token


def _build_card_error(code: str, message: str, param: str) -> ApiError:
    return ApiError(402, message, kind="card_error", code=code, param=param)


def _has_check_digit(digits: str) -> bool:
    """Return whether the check digit at the end is correct (Luhn)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def describe_card(token: str, number: str | None, exp_month: int, exp_year: int, cvc: str | None) -> Body:
    """Return the field `card` of a payment method."""
    card = CARDS[token]
    number = number or card.number
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "unchecked" if cvc else None,
        },
        "country": card.country,
        "display_brand": {"amex": "american_express", "diners": "diners_club"}.get(card.brand, card.brand),
        "exp_month": exp_month,
        "exp_year": exp_year + 2000 if exp_year < 100 else exp_year,
        "fingerprint": hashlib.sha256(number.encode()).hexdigest()[:16],
        "funding": card.funding,
        "last4": number[-4:],
        "networks": {"available": [card.brand]},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": card.brand != "amex"},
    }
