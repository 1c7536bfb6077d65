"""Each movement of the balance at Stripe is booked against the account that explains it."""

import pytest

from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.stripe_balance.entries import (
    BalanceTransaction,
    PaymentSubject,
    balance_entries,
    choose_account,
)

INVOICE, PURCHASE = PaymentSubject("invoice", "i1", "acme"), PaymentSubject("purchase", "pi_1", "acme")


@pytest.mark.parametrize(
    ("type_", "source", "subject", "is_noted", "account"),
    [
        ("charge", "charge", INVOICE, False, "clearing"),
        ("charge", "charge", PURCHASE, False, "clearing"),
        ("charge", "charge", None, False, "other"),
        ("refund", "refund", PURCHASE, False, "clearing"),
        ("refund", "refund", INVOICE, True, "clearing"),
        ("refund", "refund", INVOICE, False, "revenue"),
        ("refund_failure", "refund", INVOICE, False, "revenue"),
        ("adjustment", "dispute", INVOICE, False, "chargebacks"),
        ("adjustment", "dispute", PURCHASE, False, "clearing"),
        ("adjustment", "", None, False, "other"),
        ("payout", "payout", None, False, "bank"),
        ("payout_failure", "payout", None, False, "bank"),
        ("stripe_fee", "", None, False, "fees"),
        ("a type of tomorrow", "", None, False, "other"),
    ],
)
def test_balance_transaction_is_booked_to_its_account(
    type_: str, source: str, subject: PaymentSubject | None, is_noted: bool, account: str
) -> None:
    moved = BalanceTransaction("txn_1", type_, "x_1", source, 0, 1000, 59)
    assert choose_account(moved, subject, is_credit_noted=is_noted) == account


@pytest.mark.parametrize(
    ("account", "amount", "fee", "booked"),
    [
        ("clearing", 1000, 59, {"cash": 941, "fees": 59, "clearing": -1000}),
        ("chargebacks", -1000, 1500, {"cash": -2500, "fees": 1500, "chargebacks": 1000}),
        ("other", 1000, 59, {"cash": 941, "other": -941}),
        ("bank", -1000, 0, {"cash": -1000, "bank": 1000}),
    ],
)
def test_balance_transaction_entries_sum_to_zero_with_its_fee(
    account: str, amount: int, fee: int, booked: dict[str, int]
) -> None:
    moved = BalanceTransaction("txn_1", "charge", "ch_1", "charge", 0, amount, fee)
    entries = balance_entries(moved, account)  # type: ignore[arg-type]
    assert {entry.account: entry.amount // CENT for entry in entries} == booked
    assert sum(entry.amount for entry in entries) == 0
