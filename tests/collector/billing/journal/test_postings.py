"""Bookings of credits: each transaction balances, and no refund exceeds the payment or the usage."""

from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.postings import (
    ACCOUNTS_BY_KIND,
    CENT,
    Account,
    ConsumptionPart,
    CreditBalance,
    Grant,
    InsufficientCreditsError,
    JournalEntry,
    TransactionKind,
    apply_entries,
)

NOW = 1_800_000_000_000


def used(amount: int, model: str = "") -> list[ConsumptionPart]:
    return [ConsumptionPart("cost", model, amount)]


def sums(entries: Sequence[JournalEntry]) -> dict[str, int]:
    """Debits less credits by account, and of deferred revenue by grant."""
    totals: dict[str, int] = {}
    for entry in entries:
        name = f"{entry.account} {entry.grant}".strip()
        totals[name] = totals.get(name, 0) + entry.amount
    return totals


BESIDE = {"overdraft", "tax", "bank", "fees", "other", "chargebacks", "customer_balance", "discounts"}
"""Accounts of entries beside the two of a kind."""


def test_every_kind_has_its_accounts() -> None:
    assert set(ACCOUNTS_BY_KIND) == set(get_args(TransactionKind))
    assert {account for pair in ACCOUNTS_BY_KIND.values() for account in pair} | BESIDE == set(get_args(Account))


@pytest.mark.parametrize(
    ("entries", "booked"),
    [
        (postings.purchase_entries(CreditBalance(), "p", 9000), {"clearing": 9000, "deferred p": -9000}),
        (
            postings.purchase_entries(CreditBalance(), "p", 9000, 1710),
            {"clearing": 10710, "deferred p": -9000, "tax": -1710},
        ),
        (
            postings.purchase_entries(CreditBalance((), 400), "p", 9000),
            {"clearing": 9000, "deferred p": -8600, "overdraft": -400},
        ),
        (postings.purchase_entries(CreditBalance((), 9400), "p", 9000), {"clearing": 9000, "overdraft": -9000}),
        (postings.gift_entries(CreditBalance(), "g", 500), {"promotion": 500, "deferred g": -500}),
        (postings.plain_entries("cost", 7, "llm_tokens", "small"), {"cogs": 7, "payable": -7}),
        (postings.plain_entries("refund_paid", 70), {"refunds": 70, "clearing": -70}),
        (postings.consumption_entries(CreditBalance((Grant("p", 90),)), used(60)), {"deferred p": 60, "revenue": -60}),
        (postings.consumption_entries(CreditBalance(), used(60)), {"overdraft": 60, "revenue": -60}),
        (postings.withdrawal_entries(CreditBalance((Grant("g", 90),)), 90), {"deferred g": 90, "promotion": -90}),
        (postings.expiry_entries(Grant("g", 90)), {"deferred g": 90, "breakage": -90}),
        (postings.expiry_reversed_entries("g", 40), {"deferred g": -40, "breakage": 40}),
        (postings.refund_entries(Grant("p", 90, paid=100), 80), {"deferred p": 80, "refunds": -80}),
        (
            postings.chargeback_entries(
                CreditBalance((Grant("g", 10), Grant("p", 30, paid=100))), Grant("p", 30, paid=100), 10000
            ),
            {"deferred p": 30, "deferred g": 10, "overdraft": 9960, "clearing": -10000},
        ),
        (
            postings.chargeback_won_entries(CreditBalance((), 60), Grant("p", 0, paid=10000), 10000),
            {"clearing": 10000, "overdraft": -60, "deferred p": -9940},
        ),
        (
            # The rest of p was taken first, then credits of g, and of e, which has expired since.
            postings.chargeback_won_entries(
                CreditBalance((Grant("g", 1), Grant("e", 0, 9), Grant("p", 0, paid=10000))),
                *(Grant("p", 0, paid=10000), 10000),
                taken=[
                    JournalEntry("deferred", part, grant) for grant, part in (("p", 6000), ("g", 3000), ("e", 1000))
                ],
                now=9,
            ),
            {"clearing": 10000, "deferred g": -3000, "deferred p": -7000},
        ),
        (
            postings.moved_out_entries(
                CreditBalance((Grant("g", 10), Grant("p", 30, paid=100))), [("p", 25), ("spent", 20)]
            ),
            {"deferred p": 30, "deferred g": 10, "overdraft": 5, "residencies": -45},
        ),
        (
            postings.overdraft_moved_out_entries(CreditBalance((), 400), "m", 500),
            {"overdraft": -400, "deferred m": -100, "residencies": 500},
        ),
        (
            postings.moved_in_entries(CreditBalance((), 60), [("a", 40), ("b", 50)]),
            {"overdraft": -60, "deferred a": -30, "residencies": 90},
        ),
        (
            postings.overdraft_moved_in_entries(CreditBalance((Grant("g", 10),)), 30),
            {"deferred g": 10, "overdraft": 20, "residencies": -30},
        ),
    ],
)
def test_each_invoice_event_books_balanced_postings(entries: Sequence[JournalEntry], booked: dict[str, int]) -> None:
    assert sums(entries) == booked
    assert sum(booked.values()) == 0


def test_consumption_spends_gifts_first_and_earliest_expiry_first() -> None:
    grants = (
        Grant("paid", 10, paid=10),
        Grant("paid, expires", 10, NOW, paid=10),
        Grant("gift", 10),
        Grant("gift, expires later", 10, NOW + 1),
        Grant("gift, expires", 10, NOW),
        Grant("gift, younger", 10),
    )
    entries = postings.consumption_entries(
        CreditBalance(grants), [ConsumptionPart("cost", "large", 40), ConsumptionPart("cost", "small", 25)]
    )
    assert [(entry.grant or entry.account, entry.amount) for entry in entries] == [
        ("gift, expires", 10),
        ("gift, expires later", 10),
        ("gift", 10),
        ("gift, younger", 10),
        ("paid, expires", 10),
        ("paid", 10),
        ("overdraft", 5),
        ("revenue", -40),
        ("revenue", -25),
    ]
    assert [(entry.meter, entry.model) for entry in entries[-2:]] == [("cost", "large"), ("cost", "small")]
    assert apply_entries(CreditBalance(grants), entries).balance == -5


@pytest.mark.parametrize(
    ("pending", "rests"),
    [
        (0, {"gift": 10, "paid": 20}),
        (4, {"gift": 6, "paid": 20}),
        (15, {"gift": 0, "paid": 15}),
        (99, {"gift": 0, "paid": 0}),
    ],
)
def test_usage_that_is_not_booked_yet_lessens_grants_in_the_order_of_spending(
    pending: int, rests: dict[str, int]
) -> None:
    assert postings.subtract_pending([Grant("paid", 20, paid=20), Grant("gift", 10)], pending) == rests


def test_returned_usage_refills_its_grants_in_reverse_order() -> None:
    balance = CreditBalance((Grant("gift", 10), Grant("void", 10, NOW), Grant("paid", 10, paid=10)))
    consumed = postings.consumption_entries(
        balance, [ConsumptionPart("cost", "a", 25), ConsumptionPart("cost", "b", 10)]
    )
    balance = apply_entries(balance, consumed)
    assert balance == CreditBalance((Grant("gift", 0), Grant("void", 0, NOW), Grant("paid", 0, paid=10)), 5)
    first = postings.usage_refund_entries(balance, "r1", 17, consumed, (), NOW)
    # The overdraft of 5, the 10 of the purchase, and 2 of the gift; what had expired comes again as r1 or r2.
    assert sums(first) == {"overdraft": -5, "deferred paid": -10, "deferred gift": -2, "revenue": 17}
    balance = apply_entries(balance, first)
    with pytest.raises(InsufficientCreditsError, match="18 millicredits at most") as refused:
        postings.usage_refund_entries(balance, "r2", 19, consumed, first, NOW)
    assert refused.value.most == 18
    second = postings.usage_refund_entries(balance, "r2", 18, consumed, first, NOW)
    assert sums(second) == {"deferred gift": -8, "deferred r2": -10, "revenue": 18}
    assert [(entry.model, entry.amount) for entry in second if entry.account == "revenue"] == [("a", 8), ("b", 10)]
    assert apply_entries(balance, second).grants[-1] == Grant("r2", 10)


def test_returned_usage_goes_to_the_stated_grants_and_the_overdraft() -> None:
    consumed = postings.consumption_entries(CreditBalance((Grant("gift", 20),)), used(25))
    returned = postings.usage_returned_entries({"": 5, "gift": 3}, 8, consumed, ())
    assert sums(returned) == {"overdraft": -5, "deferred gift": -3, "revenue": 8}


@pytest.mark.parametrize(("payer", "credited"), [("old", "deferred old"), ("", "overdraft")])
def test_moved_usage_is_paid_by_another_grant(payer: str, credited: str) -> None:
    assert sums(postings.usage_moved_entries(payer, "gift", 7)) == {"deferred gift": 7, credited: -7}


def test_no_more_is_taken_back_than_there_is() -> None:
    with pytest.raises(InsufficientCreditsError, match="40 millicredits at most"):
        postings.withdrawal_entries(CreditBalance((Grant("g", 40), Grant("p", 60, paid=60))), 41)
    with pytest.raises(InsufficientCreditsError, match="20 millicredits at most"):
        postings.refund_entries(Grant("p", 60, paid=100, returned=80), 21)


def test_refund_returns_the_tax_to_the_cent() -> None:
    grant = Grant("p", 1000 * CENT, paid=1000 * CENT, tax=77 * CENT)
    tax = 0
    for part in (1, 332, 333, 334):
        held = sums(postings.refund_entries(grant, part * CENT))
        assert held.get("tax", 0) % CENT == 0
        tax += held.get("tax", 0)
        grant = grant._replace(rest=grant.rest - part * CENT, returned=grant.returned + part * CENT)
    assert (tax, grant.rest) == (77 * CENT, 0)
    whole = Grant("p", 1000 * CENT, paid=1000 * CENT, tax=77 * CENT)
    assert sums(postings.chargeback_entries(CreditBalance((whole,)), whole, 1077 * CENT)) == {
        "deferred p": 1000 * CENT,
        "tax": 77 * CENT,
        "clearing": -1077 * CENT,
    }


def test_tax_goes_back_in_units_that_can_be_paid() -> None:
    # 10 KWD; the smallest payable unit is 10 fils.
    grant = Grant("p", 10_000 * CENT, paid=10_000 * CENT, tax=770 * CENT)
    tax = 0
    for part in (330, 3330, 6340):
        held = sums(postings.refund_entries(grant, part * CENT, 10))
        assert held.get("tax", 0) % (10 * CENT) == 0
        tax += held.get("tax", 0)
        grant = grant._replace(rest=grant.rest - part * CENT, returned=grant.returned + part * CENT)
    assert (tax, grant.rest) == (770 * CENT, 0)
    assert postings.compute_net(grant, 500 * CENT, 10) == 460 * CENT, "not 464 fils"


def test_failed_refund_returns_to_the_grant() -> None:
    grant = Grant("p", 500 * CENT, paid=1000 * CENT, tax=190 * CENT)
    held = postings.refund_entries(grant, 500 * CENT)
    balance = apply_entries(CreditBalance((grant,)), held)
    assert balance.balance == 0
    back = postings.refund_failed_entries(apply_entries(balance, postings.consumption_entries(balance, used(7))), held)
    assert sums(back) == {
        "overdraft": -7,
        "deferred p": 7 - 500 * CENT,
        "tax": -95 * CENT,
        "refunds": 595 * CENT,
    }
    assert sum(entry.amount for entry in (*held, *back) if entry.account == "refunds") == 0


ACTS = st.sampled_from(
    ["purchase", "gift", "consumption", "usage_refund", "withdrawal", "refund", "failed", "chargeback", "won", "expiry"]
)
STEPS = st.lists(st.tuples(ACTS, st.integers(1, 60), st.integers(0, 3), st.sampled_from([None, 1, 2, 3])), max_size=40)


@given(STEPS)
def test_balance_equals_the_sum_of_movements_in_any_order(steps: list[tuple[str, int, int, int | None]]) -> None:
    """An independent sum of all movements equals the balance. No purchase refunds more than its price."""
    balance = CreditBalance()
    consumed: list[tuple[tuple[JournalEntry, ...], list[JournalEntry]]] = []
    held: list[tuple[str, tuple[JournalEntry, ...]]] = []
    disputes: list[tuple[str, int]] = []
    returned: dict[str, int] = {}
    came = went = 0
    for number, (act, amount, which, expires) in enumerate(steps):
        cents = amount * CENT
        before, entries = balance.balance, tuple[JournalEntry, ...]()
        purchased = [grant for grant in balance.grants if grant.paid]
        chosen = purchased[which % len(purchased)] if purchased else None
        match act:
            case "purchase":
                entries = postings.purchase_entries(balance, f"{number}", cents, which * CENT)
                new = Grant(f"{number}", 0, paid=cents, tax=which * CENT)
                balance = balance._replace(grants=(*balance.grants, new))
                came += cents
            case "gift":
                entries = postings.gift_entries(balance, f"{number}", amount)
                balance = balance._replace(grants=(*balance.grants, Grant(f"{number}", 0, expires)))
                came += amount
            case "consumption":
                entries = postings.consumption_entries(
                    balance, [ConsumptionPart("cost", "a", cents), ConsumptionPart("cost", "b", which + 1)]
                )
                consumed.append((entries, []))
                went += cents + which + 1
            case "usage_refund" if consumed:
                original, refunds = consumed[which % len(consumed)]
                left = -sum(one.amount for one in (*original, *refunds) if one.account == "revenue")
                if cents // 2 > left:
                    with pytest.raises(InsufficientCreditsError):
                        postings.usage_refund_entries(balance, f"{number}", cents // 2, original, refunds, 2)
                    continue
                entries = postings.usage_refund_entries(balance, f"{number}", cents // 2, original, refunds, 2)
                refunds += entries
                assert sum(one.amount for one in (*original, *refunds) if one.account == "revenue") <= 0
                came += cents // 2
            case "withdrawal":
                try:
                    entries = postings.withdrawal_entries(balance, amount)
                except InsufficientCreditsError:
                    continue
                went += amount
            case "refund" if chosen is not None:
                try:
                    entries = postings.refund_entries(chosen, cents)
                except InsufficientCreditsError:
                    continue
                returned[chosen.id] = returned.get(chosen.id, 0) + cents
                assert returned[chosen.id] <= chosen.paid
                held.append((chosen.id, entries))
                went += cents
            case "failed" if held:
                grant, hold = held.pop(which % len(held))
                entries = postings.refund_failed_entries(balance, hold)
                amount_back = sum(entry.amount for entry in hold if entry.account == "deferred")
                returned[grant] -= amount_back
                came += amount_back
            case "chargeback" if chosen is not None:
                total = min(cents, chosen.paid + chosen.tax)
                entries = postings.chargeback_entries(balance, chosen, total)
                returned[chosen.id] = returned.get(chosen.id, 0) + postings.compute_net(chosen, total)
                disputes.append((chosen.id, total))
                went += postings.compute_net(chosen, total)
            case "won" if disputes:
                grant, total = disputes.pop(which % len(disputes))
                known = balance.grant(grant)
                assert known is not None
                entries = postings.chargeback_won_entries(balance, known, total)
                returned[grant] -= postings.compute_net(known, total)
                came += postings.compute_net(known, total)
            case "expiry":
                void = [grant for grant in balance.grants if grant.expires is not None and grant.rest]
                if void:
                    entries = postings.expiry_entries(void[0])
                    went += void[0].rest
        assert sum(entry.amount for entry in entries) == 0
        balance = apply_entries(balance, entries)
        balance = balance._replace(
            grants=tuple(grant._replace(returned=returned.get(grant.id, 0)) for grant in balance.grants)
        )
        assert balance.balance == before + postings.compute_change(entries) == came - went
        assert all(grant.rest >= 0 for grant in balance.grants)
        assert balance.overdraft == 0 or not any(grant.rest for grant in balance.grants)
        assert balance.overdraft >= 0


def test_late_usage_consumes_grants_that_expired_since() -> None:
    balance = CreditBalance((Grant("paid", 50, paid=100), Grant("gone", 0, NOW), Grant("later", 10, NOW + 1)))
    expired = {"gone": 30, "later": 5}
    for amount, parts in (
        (20, [("gone", 20)]),
        (30, [("gone", 30)]),
        (38, [("gone", 30)]),
        (43, [("gone", 30), ("later", 3)]),
        (90, [("gone", 30), ("later", 5)]),
    ):
        assert postings.split_expired(balance, expired, amount) == parts
