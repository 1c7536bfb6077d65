"""The row of an invoice, as it is read."""

from typing import Literal, NamedTuple

InvoiceState = Literal[
    "draft",
    "closing",
    "held",
    "open",
    "paid",
    "voiding",
    "void",
    "waived",
    "uncollectible",
    "settling",
    "writing_off",
]


class InvoiceRow(NamedTuple):
    """An invoice row with its customer's name. Amounts are in the smallest unit, times in Unix seconds."""

    id: str
    customer: str
    subscription: str
    period: str
    kind: str
    state: InvoiceState
    stripe_id: str | None
    replaced_ids: str
    """Earlier Stripe ids of this invoice, separated by commas. They no longer refer to it."""
    subtotal: int
    total: int
    amount_due: int
    amount_paid: int
    paid_off_stripe: int
    """The part of `amount_paid` that was paid outside Stripe."""
    balance_applied: int
    currency: str
    period_start: int
    period_end: int
    closes_at: int
    held_why: str | None
    voided_why: str | None
    accepted_why: str | None
    pdf: str | None
    url: str | None
    tries: int
    failures: int
    created_at: int
    """Unix milliseconds."""
    number: str | None
    issued_at: int | None
    due_at: int | None
    paid_at: int | None
    name: str
    credited: int
    refunded: int
    disputed: int
    lost: int
    declines: int | None
    declined_at: int | None
    retry_at: int | None
    decline_reason: object
    """The text of the column `why`, or a mark that it is unreadable."""
