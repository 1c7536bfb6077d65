"""The reason for a declined payment, from what Stripe states of it."""

import pytest

from edgeproxy.collector.billing.invoices.declines import CODES, REASONS, DeclineReason, find_reason, parse_reason
from edgeproxy.collector.billing.invoices.stripe_payments import find_failure, parse_failure
from stripe_sandbox.objects import bank_accounts, cards


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (("insufficient_funds", "card_declined"), "funds"),
        (("generic_decline", "authentication_required"), "confirmation"),
        ((None, "expired_card"), "expired"),
        (("of_tomorrow", "card_declined"), "other"),
        (("stolen_card", "card_declined"), "other"),
        ((None, None), "other"),
        (({"odd": 1}, 7), "other"),
    ],
)
def test_reason_is_that_of_the_first_known_code(codes: tuple[object, ...], reason: str) -> None:
    assert find_reason(*codes) == reason


def test_each_code_has_one_reason_and_none_accuses_the_holder_of_the_card() -> None:
    assert len(REASONS) == sum(map(len, CODES.values()))
    assert not REASONS.keys() & {"fraudulent", "lost_card", "merchant_blacklist", "pickup_card", "stolen_card"}


def test_declines_of_test_cards_and_accounts_have_a_reason_or_hide_it() -> None:
    codes = {card.declined for card in cards.CARDS.values()} | {
        account.declined for account in bank_accounts.BANK_ACCOUNTS.values()
    }
    assert codes - REASONS.keys() == {None, "generic_decline", "lost_card", "stolen_card", "fraudulent"}


def test_stored_reason_is_read_and_a_sentence_of_an_older_version_is_other() -> None:
    assert [parse_reason(reason.value) for reason in DeclineReason] == list(DeclineReason)
    assert {parse_reason(text) for text in ("Your card was declined.", "", None, object())} == {DeclineReason.OTHER}


def test_failed_payment_of_an_invoice_has_the_reason_of_its_intent() -> None:
    error = {"message": "Your card has expired.", "code": "expired_card", "decline_code": "expired_card"}
    intents = ({"status": "canceled"}, {"status": "requires_payment_method", "last_payment_error": error})
    payments = {"data": [{"payment": {"payment_intent": intent}} for intent in intents]}
    assert find_failure({"payments": payments}) == ("Your card has expired.", DeclineReason.EXPIRED)
    assert find_failure({}) == ("The payment failed.", DeclineReason.OTHER)
    assert parse_failure({"last_payment_error": {"code": "expired_card"}}) is None
