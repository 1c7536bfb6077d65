"""Credit notes as rows: each takes back a part of an invoice.

    requested ──▶ made ──▶ void
        └───────▶ refused

A person requests a credit note. It stays `requested` until Stripe has created it, or has refused it for good. A credit
note that a person created or voided at Stripe is adopted.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.billing.invoices.credit_decision import NoteParts
from edgeproxy.collector.billing.invoices.foreign_balance import book_foreign_change
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import credit_notes, invoices
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.schema import INTEGER, customers
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event

REQUESTED, MADE, REFUSED, VOID = "requested", "made", "refused", "void"
COUNTED = frozenset({REQUESTED, MADE})
"""The states of credit notes that reduce an invoice."""
METADATA = "edgeproxy_credit_note"
"""The metadata key of a Stripe credit note for our id."""
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    REQUESTED: frozenset({REQUESTED, MADE, REFUSED}),  # It stays after a failed try.
    MADE: frozenset({VOID}),
    VOID: frozenset(),
    REFUSED: frozenset(),
}
"""The states that may follow each state."""
EVENT_TYPES: Final[Mapping[str, EventType]] = {
    MADE: EventType.CREDIT_NOTE_CREATED,
    VOID: EventType.CREDIT_NOTE_VOIDED,
}
"""The type of the webhook event for each state."""


class CreditNoteStateError(Exception):
    """The credit note cannot make this transition from its state."""


class CreditNote(NamedTuple):
    """A requested credit note."""

    id: str
    invoice: str
    amount: int
    """The amount in smallest units."""
    why: str
    state: str
    tries: int
    """The number of used Idempotency-Keys."""
    failures: int
    """The number of failed calls."""


class InvoiceCreditNote(TypedDict):
    """A credit note of an invoice. Amounts are in the smallest unit of its currency, such as cents."""

    id: str
    """The id of the credit note."""
    amount: int
    """The credited amount, in the smallest unit."""
    refunded: int
    """The part of the amount that was paid back, in the smallest unit."""
    why: str
    """The reason that an operator gave. It is printed on the credit note."""
    state: Literal["requested", "made", "refused", "void"]
    """`requested` until Stripe has answered, then `made` or `refused`; `void` once it was voided at Stripe."""
    stripe_id: str | None
    """The id of the credit note at Stripe; null until Stripe has it."""
    created_at: str | None
    """The time when the credit note was requested."""


FIELDS = [credit_notes.c[name] for name in CreditNote._fields]


async def list_of_invoice(connection: AsyncConnection, invoice: str) -> list[InvoiceCreditNote]:
    """Return the credit notes of an invoice in the form of the API, oldest first."""
    statement = sa.select(credit_notes).where(credit_notes.c.invoice == invoice).order_by(credit_notes.c.id)
    return [
        {
            "id": row.id,
            "amount": row.amount,
            "refunded": row.refunded,
            "why": row.why,
            "state": row.state,
            "stripe_id": row.stripe_id,
            "created_at": format_timestamp(row.created_at),
        }
        for row in await connection.execute(statement)
    ]


def parse_parts(stripe_note: StripeObject) -> NoteParts:
    """Return the parts of a Stripe credit note's amount by the way of their return; all 0 for an unpaid invoice."""
    off_stripe = stripe_note.get("out_of_band_amount") or 0
    refunded = sum(int(part["amount_refunded"]) for part in stripe_note.get("refunds") or ())
    # Stripe states no sum for the balance, which gets the rest.
    return NoteParts(int(stripe_note["post_payment_amount"]) - refunded - off_stripe, off_stripe, refunded)


async def sum_parts(connection: AsyncConnection, invoice: str) -> NoteParts:
    """Return the returned amounts of an invoice, by id, so far, for each way."""
    totals = [sa.cast(sa.func.coalesce(sa.func.sum(credit_notes.c[name]), 0), INTEGER) for name in NoteParts._fields]
    statement = sa.select(*totals).where(credit_notes.c.invoice == invoice, credit_notes.c.state == MADE)
    return NoteParts._make((await connection.execute(statement)).one())


async def list_due(connection: AsyncConnection, now: float, limit: int) -> list[CreditNote]:
    """Return the requested credit notes whose next try is due at this Unix second, oldest first."""
    columns = credit_notes.c
    statement = sa.select(*FIELDS).where(columns.state == REQUESTED, columns.try_at <= now)
    return [CreditNote(*row) for row in await connection.execute(statement.order_by(columns.id).limit(limit))]


async def transition(connection: AsyncConnection, note: CreditNote, state: str, **values: object) -> None:
    """Set the state of a credit note and these columns. Raises CreditNoteStateError if TRANSITIONS has no such step."""
    if state not in TRANSITIONS[note.state]:
        raise CreditNoteStateError(f"a credit note cannot go from {note.state} to {state}")
    columns = credit_notes.c
    statement = sa.update(credit_notes).where(columns.id == note.id, columns.state == note.state)
    if (await connection.execute(statement.values(state=state, **values))).rowcount and state in EVENT_TYPES:
        await _enqueue_event(connection, note, EVENT_TYPES[state])


async def _enqueue_event(connection: AsyncConnection, note: CreditNote, event_type: EventType) -> None:
    """Enqueue the customer's webhook event for a credit note that was created or voided."""
    of_invoice = sa.select(invoices.c.customer, invoices.c.currency, customers.c.name)
    of_invoice = of_invoice.join_from(invoices, customers, customers.c.id == invoices.c.customer)
    row = (await connection.execute(of_invoice.where(invoices.c.id == note.invoice))).one()

    async def build_data() -> Mapping[str, object]:
        (response,) = [one for one in await list_of_invoice(connection, note.invoice) if one["id"] == note.id]
        return {"customer": row.name, "invoice": note.invoice, "currency": row.currency, **response}

    await enqueue_event(connection, row.customer, event_type, now_ms(), build_data)


async def apply_stripe_note(connection: AsyncConnection, stripe_note: StripeObject) -> None:
    """Apply a credit note just fetched from Stripe.

    A credit note that Stripe does not have is ignored, whatever the event says. For invoices that are not ours, only
    the change of the customer's balance is booked.
    """
    if stripe_note.get("deleted"):
        return
    columns = credit_notes.c
    known = match_book_text(connection, columns.stripe_id, stripe_note["id"])
    number = (stripe_note.get("metadata") or {}).get(METADATA)
    # By our id, too, because the answer with Stripe's id may have been lost on its way.
    if isinstance(number, str):
        known |= columns.id == number
    rows = await connection.execute(sa.select(*FIELDS).where(known).with_for_update())
    note = next((CreditNote(*row) for row in rows), None)
    if note is None:
        note = await _insert_stripe_note(connection, stripe_note)
    if note is None:
        await book_foreign_change(connection, stripe_note, parse_parts(stripe_note).to_balance)
    elif note.state == MADE and stripe_note["status"] == VOID:
        await transition(connection, note, VOID)


async def _insert_stripe_note(connection: AsyncConnection, stripe_note: StripeObject) -> CreditNote | None:
    """Insert a credit note that was created at Stripe. Return None if its invoice is not ours."""
    invoice = stripe_note["invoice"]
    stripe_id = invoice["id"] if isinstance(invoice, Mapping) else invoice
    statement = sa.select(invoices.c.id).where(match_book_text(connection, invoices.c.stripe_id, stripe_id))
    of = await connection.scalar(statement)
    if of is None:
        return None
    why = str(stripe_note.get("memo") or stripe_note.get("reason") or "made at Stripe")
    note = CreditNote(generate_id(), of, int(stripe_note["amount"]), why, MADE, 0, 0)
    parts = {
        **parse_parts(stripe_note)._asdict(),
        "stripe_id": stripe_note["id"],
        "created_at": int(stripe_note["created"]) * 1000,
    }
    await connection.execute(sa.insert(credit_notes).values(**note._asdict(), **parts))
    await _enqueue_event(connection, note, EventType.CREDIT_NOTE_CREATED)
    return note
