"""The decision about a credit note: whether a part of an invoice can be given back, and by which way. Pure.

The API, and by it commands and pages, decide before they accept a credit note. The delivery decides again before it
calls Stripe, as the invoice may have been paid or disputed meanwhile.
"""

from typing import NamedTuple

OPEN, PAID = "open", "paid"


class NoteParts(NamedTuple):
    """The ways by which the amount of a credit note goes back, in smallest units, by the names of the columns."""

    to_balance: int
    off_stripe: int
    refunded: int


class CreditableInvoice(NamedTuple):
    """An invoice as a decision about a credit note reads it. Amounts are smallest units of the currency."""

    state: str
    is_at_stripe: bool
    total: int
    amount_due: int
    paid_by_stripe: int
    paid_off_stripe: int
    credited: int
    """The sum of credit notes that are made."""
    requested: int
    """The sum of other credit notes that are requested and not made yet."""
    lost: int
    """The sum that lost disputes took back."""
    refunded_without_note: int
    """The sum of refunds that somebody made at Stripe without a credit note."""
    is_disputed: bool
    """Whether a bank holds a payment until it decides."""
    back: NoteParts
    """The amounts that went back by credit notes so far."""
    unit: int
    """All payments in the currency are multiples of this amount."""
    least_charge: int
    """Stripe charges no smaller amount."""


class NoteRefusedError(Exception):
    """A credit note cannot be made. The message is for operators, and continues `the invoice …` or `amount …`."""

    def __init__(self, why: str, *, is_amount: bool = False) -> None:
        super().__init__(why)
        self.is_amount = is_amount
        """Whether another amount would be accepted."""


def decide_note(invoice: CreditableInvoice, amount: int) -> NoteParts | None:
    """Return the ways by which an amount of an invoice goes back; None if less is due instead, as it is unpaid.

    A refund returns first what was paid through Stripe. An amount that was paid elsewhere goes back out of band. The
    rest, which the balance had paid, is credited to the balance. Raises NoteRefusedError.
    """
    if invoice.state not in (OPEN, PAID) or not invoice.is_at_stripe:
        raise NoteRefusedError(f"is {invoice.state}: some can be taken back of one that is open or paid")
    left = invoice.total - invoice.credited - invoice.requested - invoice.lost - invoice.refunded_without_note
    if invoice.state == OPEN:  # A part that the balance has paid stays: Stripe lowers the amount due only.
        left = min(left, invoice.amount_due - invoice.requested)
    if amount > left:
        raise NoteRefusedError(f"is above the {max(left, 0)} left", is_amount=True)
    if amount % invoice.unit:
        raise NoteRefusedError(f"is no multiple of {invoice.unit}, as all payments are", is_amount=True)
    if invoice.state == OPEN:
        if 0 < left - amount < invoice.least_charge:  # Nobody could pay the rest by Stripe.
            why = f"would leave {left - amount}, below the least charge of {invoice.least_charge}: credit all {left}"
            raise NoteRefusedError(f"{why} or leave {invoice.least_charge}", is_amount=True)
        return None
    # Requested credit notes are made before this one.
    before = _split(invoice, invoice.requested, invoice.back)
    back = NoteParts(*(earlier + requested for earlier, requested in zip(invoice.back, before, strict=True)))
    parts = _split(invoice, amount, back)
    if parts.refunded and invoice.is_disputed:
        raise NoteRefusedError("has a disputed payment: Stripe refunds it only if the bank decides for you")
    return parts


def _split(invoice: CreditableInvoice, amount: int, back: NoteParts) -> NoteParts:
    """Return the ways of an amount, after `back` went back. A payment whose dispute was lost cannot be refunded."""
    by_stripe = 0 if invoice.lost else invoice.paid_by_stripe - invoice.refunded_without_note
    refund = min(amount, max(by_stripe - back.refunded, 0))
    off_stripe = min(amount - refund, max(invoice.paid_off_stripe - back.off_stripe, 0))
    return NoteParts(amount - refund - off_stripe, off_stripe, refund)


def to_stripe(parts: NoteParts) -> dict[str, int]:
    """Return the parameters by which Stripe gives these parts back."""
    named = {
        "refund_amount": parts.refunded,
        "out_of_band_amount": parts.off_stripe,
        "credit_amount": parts.to_balance,
    }
    return {name: part for name, part in named.items() if part}
