"""The states of disputes: a bank questions a payment or takes it back, until it decides. Pure.

    inquiry ──▶ needs_response ⇄ under_review ──▶ won, lost
       └──▶ closed

Stripe decides the state, and may change any state: a lost dispute may be won later. A lost dispute takes its amount off
the invoice, like a credit note. A won dispute puts it back.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple, NotRequired

from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.declined_payment import format_second
from edgeproxy.collector.billing.stripe.client import StripeObject


class DisputeState(StrEnum):
    """The state of a dispute."""

    INQUIRY = "inquiry"
    """The bank asks about the payment. No money has been taken."""
    NEEDS_RESPONSE = "needs_response"
    """The money is taken. An answer until `answer_by` may bring it back."""
    UNDER_REVIEW = "under_review"
    """The bank has our answer, and decides."""
    WON = "won"
    LOST = "lost"
    CLOSED = "closed"
    """An inquiry ended without a dispute."""


INQUIRY, NEEDS_RESPONSE, UNDER_REVIEW = DisputeState.INQUIRY, DisputeState.NEEDS_RESPONSE, DisputeState.UNDER_REVIEW
WON, LOST, CLOSED = DisputeState.WON, DisputeState.LOST, DisputeState.CLOSED
OPEN_STATES = frozenset({INQUIRY, NEEDS_RESPONSE, UNDER_REVIEW})
UNANSWERED = frozenset({INQUIRY, NEEDS_RESPONSE})
WITHDRAWN = frozenset({NEEDS_RESPONSE, UNDER_REVIEW})
"""The states where the bank holds the money."""
STATES_BY_STRIPE: Final[Mapping[str, DisputeState]] = {
    "warning_needs_response": INQUIRY,
    "warning_under_review": INQUIRY,
    "warning_closed": CLOSED,
    "prevented": CLOSED,
    "needs_response": NEEDS_RESPONSE,
    "under_review": UNDER_REVIEW,
    "won": WON,
    "lost": LOST,
}
"""Our states by Stripe's status. An unknown status counts as `under_review`."""


class Dispute(NamedTuple):
    """A dispute. Amounts are in the currency's smallest unit, for example cents; times are Unix seconds."""

    id: str
    customer: str
    invoice: str | None
    """The paid invoice; None if the payment bought credits."""
    purchase: str | None
    """The purchased grant of credits; None if the payment was for an invoice."""
    state: DisputeState
    amount: int
    currency: str
    reason: str
    """The reason in Stripe's words, for example `fraudulent`."""
    answer_by: int | None
    """The last second for an answer; None if none is possible."""
    taken_off: int
    """The part of the invoice that is lost."""
    created_at: int
    """Unix milliseconds."""
    closed_at: int | None


class InvoiceDispute(TypedDict):
    """A dispute of a payment. Amounts are in the smallest unit of its currency, for example cents."""

    id: str
    """The id of the dispute."""
    state: DisputeState
    """`inquiry`: the bank asks. `needs_response`, `under_review`: the bank holds the money. Then `won`, `lost`, or
    `closed` for an inquiry that ended."""
    amount: int
    """The disputed amount, in the smallest unit."""
    amount_lost: int
    """The part of the invoice that is lost, in the smallest unit; 0 unless the dispute is lost."""
    reason: str
    """The reason in Stripe's words, for example `fraudulent`."""
    answer_by: str | None
    """The deadline for an answer at Stripe; null if no answer is possible, and for customers."""
    created_at: str | None
    """The time when the dispute was opened."""
    closed_at: str | None
    """The time when the collector learnt the decision; null until then."""


class ListedDispute(InvoiceDispute):
    """A dispute in the list of all disputes, with its payment."""

    customer: str
    """The name of the customer."""
    invoice: str | None
    """The id of the invoice that was paid; null if the payment bought credits."""
    purchase: str | None
    """The id of the credit purchase that was paid; null if the payment was for an invoice."""
    currency: str
    """The currency of the amounts."""
    stripe_id: str | None
    """The id of the dispute at Stripe. Answer it there."""


class DisputeList(TypedDict):
    """A page of disputes, newest first."""

    disputes: list[ListedDispute]
    """The disputes of this page, newest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


def advance(before: Dispute, stripe_dispute: StripeObject, left: int, now: int) -> Dispute:
    """Return a dispute in its current state at Stripe. `left` is the part of its invoice that is still due or paid.

    `now` is the Unix second recorded as the time of a decision.
    """
    state = STATES_BY_STRIPE.get(str(stripe_dispute.get("status")), UNDER_REVIEW)
    taken_off = 0
    if state is LOST and before.invoice is not None:
        taken_off = before.taken_off if before.state is LOST else max(0, min(int(stripe_dispute["amount"]), left))
    due_by = (stripe_dispute.get("evidence_details") or {}).get("due_by")
    return before._replace(
        state=state,
        amount=int(stripe_dispute["amount"]),
        reason=str(stripe_dispute.get("reason") or "general"),
        answer_by=int(due_by) if due_by is not None and state in UNANSWERED else None,
        taken_off=taken_off,
        closed_at=None if state in OPEN_STATES else before.closed_at or now,
    )


def to_response(dispute: Dispute) -> InvoiceDispute:
    """Return a dispute in the form of the API."""
    return {
        "id": dispute.id,
        "state": dispute.state,
        "amount": dispute.amount,
        "amount_lost": dispute.taken_off,
        "reason": dispute.reason,
        "answer_by": format_second(dispute.answer_by),
        "created_at": format_timestamp(dispute.created_at),
        "closed_at": format_second(dispute.closed_at),
    }
