"""Decisions about credit notes: accepted or refused, and the way of their money."""

import pytest

from edgeproxy.collector.billing.invoices.credit_decision import (
    CreditableInvoice,
    NoteParts,
    NoteRefusedError,
    decide_note,
    to_stripe,
)

PAID = CreditableInvoice("paid", True, 100, 0, 100, 0, 0, 0, 0, 0, False, NoteParts(0, 0, 0), 1, 20)
OPEN = PAID._replace(state="open", paid_by_stripe=0, amount_due=100)


@pytest.mark.parametrize(
    ("amount", "paid", "back", "requested", "parts"),
    [
        (60, (100, 0), (0, 0, 0), 0, {"refund_amount": 60}),
        (60, (0, 100), (0, 0, 0), 0, {"out_of_band_amount": 60}),
        (60, (0, 90), (0, 40, 0), 0, {"out_of_band_amount": 50, "credit_amount": 10}),
        (60, (50, 50), (0, 0, 20), 0, {"refund_amount": 30, "out_of_band_amount": 30}),
        (60, (50, 0), (0, 0, 0), 0, {"refund_amount": 50, "credit_amount": 10}),
        (60, (50, 0), (0, 0, 0), 40, {"refund_amount": 10, "credit_amount": 50}),
    ],
)
def test_credit_note_refunds_each_payment_source(
    amount: int, paid: tuple[int, int], back: tuple[int, int, int], requested: int, parts: dict[str, int]
) -> None:
    by_stripe, off_stripe = paid
    invoice = PAID._replace(paid_by_stripe=by_stripe, paid_off_stripe=off_stripe, back=NoteParts(*back))
    decided = decide_note(invoice._replace(credited=sum(back), requested=requested), amount)
    assert decided is not None
    assert to_stripe(decided) == parts


@pytest.mark.parametrize(
    ("invoice", "amount", "why"),
    [
        (PAID._replace(credited=30, requested=20, lost=10), 41, "is above the 40 left"),
        (PAID._replace(credited=90, lost=100), 1, "is above the 0 left"),
        (PAID._replace(credited=30, refunded_without_note=50), 21, "is above the 20 left"),
        (PAID._replace(unit=5), 12, "is no multiple of 5"),
        (PAID._replace(is_disputed=True), 1, "has a disputed payment"),
        (PAID._replace(is_at_stripe=False), 1, "is paid: some can be taken back"),
        (PAID._replace(state="void"), 1, "is void: some can be taken back"),
        (OPEN._replace(amount_due=70), 80, "is above the 70 left"),
        (OPEN._replace(amount_due=70, requested=30), 50, "is above the 40 left"),
        (OPEN._replace(amount_due=70, requested=30), 21, "would leave 19, below the least charge of 20"),
    ],
)
def test_a_credit_note_that_stripe_would_refuse_is_refused_at_once(
    invoice: CreditableInvoice, amount: int, why: str
) -> None:
    with pytest.raises(NoteRefusedError, match=why):
        decide_note(invoice, amount)


def test_credit_note_excludes_unpaid_and_disputed_amounts_from_refunds() -> None:
    assert decide_note(OPEN, 100) is None
    assert decide_note(OPEN, 80) is None
    assert decide_note(PAID._replace(lost=40), 60) == NoteParts(60, 0, 0)
    assert decide_note(PAID._replace(refunded_without_note=60), 40) == NoteParts(0, 0, 40)
    transferred = PAID._replace(paid_by_stripe=0, paid_off_stripe=100, is_disputed=True)
    assert decide_note(transferred, 100) == NoteParts(0, 100, 0)
