"""The reasons for declined payments, by Stripe's codes. Pure.

Banks and Stripe have dozens of codes, and add new ones. Customers read one of these few reasons, each with its own
remedy. Its words are in collector/alerts/words.py.
"""

from enum import StrEnum
from typing import NamedTuple


class DeclineReason(StrEnum):
    """The reason for a declined payment, as customers read it."""

    OTHER = "other"
    """The bank stated no reason, or one that must not reach the holder of the card, such as a stolen card."""
    FUNDS = "funds"
    LIMIT = "limit"
    EXPIRED = "expired"
    DETAILS = "details"
    """The number, the security code or the address of the card is wrong."""
    CONFIRMATION = "confirmation"
    """The bank asks the holder of the card, who was not there."""
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    """The bank did not answer."""
    STOPPED = "stopped"
    """The customer has told the bank to stop payments to us."""
    DUPLICATE = "duplicate"
    ACCOUNT = "account"
    """The bank account is closed or unknown."""
    TEST = "test"
    NO_METHOD = "no_method"
    NO_TAX_ID = "no_tax_id"


class PaymentFailure(NamedTuple):
    """A failed payment."""

    message: str
    """Stripe's sentence, in English."""
    reason: DeclineReason = DeclineReason.OTHER


CODES: dict[DeclineReason, tuple[str, ...]] = {
    DeclineReason.FUNDS: ("insufficient_funds",),
    DeclineReason.LIMIT: (
        "card_velocity_exceeded",
        "withdrawal_count_limit_exceeded",
        "charge_exceeds_source_limit",
        "charge_exceeds_transaction_limit",
        "charge_exceeds_weekly_limit",
    ),
    DeclineReason.EXPIRED: ("expired_card", "invalid_expiry_month", "invalid_expiry_year"),
    DeclineReason.DETAILS: (
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_zip",
        "invalid_cvc",
        "invalid_number",
    ),
    DeclineReason.CONFIRMATION: (
        "approve_with_id",
        "authentication_not_handled",
        "authentication_required",
        "invoice_payment_intent_requires_action",
        "mobile_device_authentication_required",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "payment_intent_authentication_failure",
    ),
    DeclineReason.UNSUPPORTED: (
        "card_not_supported",
        "currency_not_supported",
        "invalid_account",
        "invalid_amount",
        "invalid_card_type",
        "not_permitted",
        "payment_method_not_available",
        "restricted_card",
        "service_not_allowed",
        "transaction_not_allowed",
    ),
    DeclineReason.UNAVAILABLE: (
        "issuer_not_available",
        "payment_method_provider_timeout",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
    ),
    DeclineReason.STOPPED: (
        "debit_authorization_not_match",
        "debit_disputed",
        "debit_not_authorized",
        "payment_method_customer_decline",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "stop_payment_order",
    ),
    DeclineReason.DUPLICATE: ("duplicate_transaction",),
    DeclineReason.ACCOUNT: (
        "account_closed",
        "account_frozen",
        "bank_account_restricted",
        "bank_account_unusable",
        "no_account",
    ),
    DeclineReason.TEST: ("test_mode_live_card", "testmode_decline"),
}
"""Stripe's codes (docs.stripe.com/declines/codes, docs.stripe.com/error-codes), by reason. All others mean OTHER.

Stripe asks to hide the reasons fraudulent, lost_card, merchant_blacklist and stolen_card from the holder of the card.
"""
REASONS = {code: reason for reason, codes in CODES.items() for code in codes}


def find_reason(*codes: object) -> DeclineReason:
    """Return the reason of the first code that has one: Stripe's `decline_code` is more precise than its `code`."""
    return next((REASONS[code] for code in codes if isinstance(code, str) and code in REASONS), DeclineReason.OTHER)


def parse_reason(text: object) -> DeclineReason:
    """Return a stored reason, or OTHER. An erased row has none."""
    return next((reason for reason in DeclineReason if reason == text), DeclineReason.OTHER)
