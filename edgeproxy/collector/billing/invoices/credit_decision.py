"""The decision about a credit note: whether a part of an invoice can be returned, and how. Pure.

The API, which commands and pages use, decides before it accepts a credit note. The delivery decides again before it
calls Stripe, because the invoice may have been paid or disputed meanwhile.
"""

from typing import NamedTuple

from edgeproxy.config.field_codes import NOT_A_MULTIPLE, OUT_OF_RANGE, FieldCode

OPEN, PAID = "open", "paid"


class NoteParts(NamedTuple):
    """The parts of a credit note's amount by the way of their return, in smallest units. The names are column names."""

    to_balance: int
    off_stripe: int
    refunded: int


class CreditableInvoice(NamedTuple):
    """The fields of an invoice that a decision needs. Amounts are in the currency's smallest unit."""

    state: str
    is_at_stripe: bool
    total: int
    amount_due: int
    paid_by_stripe: int
    paid_off_stripe: int
    credited: int
    """The sum of created credit notes."""
    requested: int
    """The sum of other credit notes that are requested and not created yet."""
    lost: int
    """The sum that lost disputes took back."""
    refunded_without_note: int
    """The sum of refunds that a person made at Stripe without a credit note."""
    is_disputed: bool
    """True while a bank holds a payment until it decides."""
    back: NoteParts
    """The amounts returned by credit notes so far."""
    unit: int
    """All payments in the currency are multiples of this amount."""
    least_charge: int
    """Stripe charges no smaller amount."""


class NoteRefusedError(Exception):
    """A credit note is refused. The message is for operators, and continues `the invoice …` or `amount …`."""

    def __init__(self, why: str, *, is_amount: bool = False, code: FieldCode = OUT_OF_RANGE) -> None:
        super().__init__(why)
        self.is_amount = is_amount
        """True if another amount would be accepted."""
        self.code = code
        """The fault of the amount, for programs."""


def decide_note(invoice: CreditableInvoice, amount: int) -> NoteParts | None:
    """Return the ways to return an amount of an invoice, or None if it only reduces the debt of an unpaid invoice.

    A refund first returns the part paid through Stripe. The part paid elsewhere is returned out of band. The rest, paid
    by the balance, is credited to the balance. Raises NoteRefusedError.
    """
    if invoice.state not in (OPEN, PAID) or not invoice.is_at_stripe:
        raise NoteRefusedError(f"is {invoice.state}: some can be taken back of one that is open or paid")
    left = invoice.total - invoice.credited - invoice.requested - invoice.lost - invoice.refunded_without_note
    if invoice.state == OPEN:  # The part paid by the balance stays, because Stripe lowers only the amount due.
        left = min(left, invoice.amount_due - invoice.requested)
    if amount > left:
        raise NoteRefusedError(f"is above the {max(left, 0)} left", is_amount=True)
    if amount % invoice.unit:
        raise NoteRefusedError(
            f"is no multiple of {invoice.unit}, as all payments are", is_amount=True, code=NOT_A_MULTIPLE
        )
    if invoice.state == OPEN:
        if 0 < left - amount < invoice.least_charge:  # The rest could not be paid through Stripe.
            why = f"would leave {left - amount}, below the least charge of {invoice.least_charge}: credit all {left}"
            raise NoteRefusedError(f"{why} or leave {invoice.least_charge}", is_amount=True)
        return None
    # Credit notes that are already requested come before this one.
    before = _split(invoice, invoice.requested, invoice.back)
    back = NoteParts(*(earlier + requested for earlier, requested in zip(invoice.back, before, strict=True)))
    parts = _split(invoice, amount, back)
    if parts.refunded and invoice.is_disputed:
        raise NoteRefusedError("has a disputed payment: Stripe refunds it only if the bank decides for you")
    return parts


def _split(invoice: CreditableInvoice, amount: int, back: NoteParts) -> NoteParts:
    """Return the ways to return an amount, after `back` was returned. A lost disputed payment cannot be refunded."""
    by_stripe = 0 if invoice.lost else invoice.paid_by_stripe - invoice.refunded_without_note
    refund = min(amount, max(by_stripe - back.refunded, 0))
    off_stripe = min(amount - refund, max(invoice.paid_off_stripe - back.off_stripe, 0))
    return NoteParts(amount - refund - off_stripe, off_stripe, refund)


def to_stripe(parts: NoteParts) -> dict[str, int]:
    """Return Stripe's parameters for the return of these parts."""
    named = {
        "refund_amount": parts.refunded,
        "out_of_band_amount": parts.off_stripe,
        "credit_amount": parts.to_balance,
    }
    return {name: part for name, part in named.items() if part}
