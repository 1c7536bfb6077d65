"""Invoices as Stripe reports them, and the effect on ours.

A person may change at Stripe an invoice that is not closed here, so its lines are not written yet. If it was deleted,
voided, or finalized without any amount, a new one replaces it at the freeze. If it was finalized with an amount, our
invoice is held, because another one would charge the customer twice. STEPS lists each case.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import dunning, invoices, stripe_payments
from edgeproxy.collector.billing.invoices.foreign_balance import book_foreign_change
from edgeproxy.collector.billing.invoices.invoice_parties import store_parties
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.config.collector.currency_units import format_with_code


class Report(StrEnum):
    """The state of an invoice in a report by Stripe."""

    DRAFT = "draft"
    GONE = "gone"
    """It was deleted or is void."""
    EMPTY = "empty"
    """It is finalized and has no amount."""
    FINALIZED = "finalized"


class Progress(Enum):
    """The progress of our invoice."""

    UNWRITTEN = "unwritten"
    """Its lines are not written: it is a draft, or was held as a draft."""
    CLOSING = "closing"
    """It is being delivered, and the delivery itself reads Stripe's state."""
    DELIVERED = "delivered"
    """It is being delivered, and this is the delivery's report."""
    WRITTEN = "written"


class ReportStep(Enum):
    """The effect of a report."""

    NOTE = "note"
    """Only links are stored."""
    TAKE = "take"
    """Stripe's state and amounts are stored."""
    REPLACE = "replace"
    """A new invoice is created at Stripe, and this one is no longer ours."""
    HOLD = "hold"


# fmt: off
_NOTE, _TAKE, _REPLACE, _HOLD = ReportStep.NOTE, ReportStep.TAKE, ReportStep.REPLACE, ReportStep.HOLD
STEPS: Final[Mapping[Progress, Mapping[Report, ReportStep]]] = {
    Progress.UNWRITTEN: {Report.DRAFT: _NOTE, Report.GONE: _REPLACE, Report.EMPTY: _REPLACE, Report.FINALIZED: _HOLD},
    Progress.CLOSING:   {Report.DRAFT: _NOTE, Report.GONE: _NOTE,    Report.EMPTY: _NOTE,    Report.FINALIZED: _NOTE},
    Progress.DELIVERED: {Report.DRAFT: _NOTE, Report.GONE: _TAKE,    Report.EMPTY: _TAKE,    Report.FINALIZED: _TAKE},
    Progress.WRITTEN:   {Report.DRAFT: _NOTE, Report.GONE: _TAKE,    Report.EMPTY: _TAKE,    Report.FINALIZED: _TAKE},
}
# fmt: on


def classify_report(stripe_invoice: StripeObject) -> Report:
    """Classify an invoice fetched from Stripe. If it was deleted there, it has `deleted`."""
    status = stripe_invoice.get("status")
    if stripe_invoice.get("deleted") or status == invoices.VOID:
        return Report.GONE
    if status not in invoices.STATES_BY_STRIPE:
        return Report.DRAFT
    return Report.FINALIZED if stripe_invoice["total"] else Report.EMPTY


def is_replaced(row: InvoiceRow, stripe_invoice: StripeObject) -> bool:
    """Return whether an invoice with written lines needs a new one at Stripe.

    It does if Stripe's invoice is gone or was finalized without the lines.
    """
    report = classify_report(stripe_invoice)
    return report is Report.GONE or (report is Report.EMPTY and row.subtotal != 0)


def is_finalized_by_hand(stripe_invoice: StripeObject) -> bool:
    """Return whether an invoice without lines of ours was finalized at Stripe with an amount."""
    return classify_report(stripe_invoice) is Report.FINALIZED


def add_replaced_id(row: InvoiceRow) -> str:
    """Return the `replaced_ids` of an invoice once its current Stripe id is given up."""
    return ",".join(filter(None, (row.replaced_ids, row.stripe_id)))


async def apply_stripe_invoice(
    connection: AsyncConnection, stripe_invoice: StripeObject, *, is_delivered: bool = False
) -> None:
    """Apply an invoice just fetched from Stripe, and raise an alert if a payment of it has failed.

    For invoices that are not ours, only the change of the customer's balance is booked. `is_delivered` means that the
    delivery reports the invoice. Without it, an invoice that is being delivered keeps its state, because it is not paid
    or sent yet.
    """
    own = await invoices.find_own(connection, stripe_invoice)
    is_ours = own is not None and await invoices.is_written(connection, own.id)  # Otherwise a person finalized it.
    if not is_ours and stripe_invoice.get("ending_balance") is not None:
        # Our row is not locked yet: booking an invoice always opens the journal first.
        credited = (stripe_invoice.get("starting_balance") or 0) - stripe_invoice["ending_balance"]
        await book_foreign_change(connection, stripe_invoice, credited)
    if own is None:
        return
    # Read again under the lock: another report of Stripe may have changed the row since the first read.
    row = await invoices.find_own(connection, stripe_invoice, lock=True)
    if row is None:
        return  # It was replaced meanwhile.
    step = STEPS[await _find_progress(connection, row, is_delivered)][classify_report(stripe_invoice)]
    if step is ReportStep.REPLACE:
        await replace_invoice(connection, row, stripe_invoice)
    elif step is ReportStep.HOLD:
        await _hold_invoice(connection, row, stripe_invoice)
    elif not stripe_invoice.get("deleted"):
        await _take_over(connection, row, stripe_invoice, has_state=step is ReportStep.TAKE)


async def _find_progress(connection: AsyncConnection, row: InvoiceRow, is_delivered: bool) -> Progress:
    if row.state == invoices.CLOSING:
        return Progress.DELIVERED if is_delivered else Progress.CLOSING
    return Progress.WRITTEN if await invoices.is_written(connection, row.id) else Progress.UNWRITTEN


async def _take_over(
    connection: AsyncConnection, row: InvoiceRow, stripe_invoice: StripeObject, *, has_state: bool
) -> None:
    """Store the links of an invoice and, with `has_state`, its state and amounts if TRANSITIONS allows the change."""
    values: dict[str, object] = {
        "stripe_id": stripe_invoice["id"],
        "pdf": stripe_invoice.get("invoice_pdf"),
        "url": stripe_invoice.get("hosted_invoice_url"),
    }
    state = invoices.STATES_BY_STRIPE.get(str(stripe_invoice.get("status")))
    if not has_state or state is None or (state != row.state and state not in invoices.TRANSITIONS[row.state]):
        await invoices.update_invoice(connection, row.id, **values)
        return
    await store_parties(connection, row.id, row.customer, stripe_invoice)
    values |= {"total": stripe_invoice["total"], "error": None, **_parse_amounts(stripe_invoice)}
    if row.accepted_why is not None or row.held_why is not None:  # Stripe's amount replaces ours.
        values["subtotal"] = stripe_invoice["subtotal"]
    if state == row.state:
        await invoices.update_invoice(connection, row.id, **values)
    else:
        await invoices.transition(connection, row.id, row.state, state, **values)
    has_failed = stripe_invoice.get("attempt_count") and not stripe_payments.is_under_way(stripe_invoice)
    if state == invoices.OPEN and has_failed and not await dunning.is_tried(connection, row.id):
        await _raise_payment_failed(connection, row, stripe_invoice)


REPLACED = {"void": "voided", "paid": "finalized without an amount"}
"""The manual change to a replaced draft, by its status at Stripe."""


async def replace_invoice(connection: AsyncConnection, row: InvoiceRow, stripe_invoice: StripeObject) -> InvoiceRow:
    """Replace an invoice that a person deleted, voided or finalized at Stripe. Return the updated row."""
    status = "deleted" if stripe_invoice.get("deleted") else str(stripe_invoice["status"])
    replaced = add_replaced_id(row._replace(stripe_id=stripe_invoice["id"]))
    values: dict[str, object] = {"stripe_id": None, "url": None, "replaced_ids": replaced, "try_at": 0}
    if not await invoices.is_written(connection, row.id):
        values |= {"subtotal": 0, "total": 0, "accepted_why": None}  # They belonged to the other invoice.
    await invoices.update_invoice(connection, row.id, **values)
    await raise_once(
        connection,
        Alert(
            key=f"invoice-replaced:{row.id}:{stripe_invoice['id']}",
            kind=AlertKind.INVOICE_REPLACED,
            title=f"The draft of {row.name} for {row.period} was {REPLACED.get(status, status)} at Stripe by hand: "
            "a new one is made",
            details={"invoice": row.id, "of": row.name, "period": row.period, "stripe_id": stripe_invoice["id"]}
            | {"status": status},
            at=now_ms() / 1000,
        ),
    )
    return row._replace(stripe_id=None, replaced_ids=replaced)


async def _hold_invoice(connection: AsyncConnection, row: InvoiceRow, stripe_invoice: StripeObject) -> None:
    """Hold an invoice that a person finalized at Stripe with an amount before ours was closed."""
    status = stripe_invoice["status"]
    total = format_amount(stripe_invoice["total"], stripe_invoice["currency"])
    key = f"invoice-finalized:{row.id}:{stripe_invoice['id']}"
    why = (
        f"somebody has finalized {stripe_invoice['id']} at Stripe with {total} ({status}), and ours is not "
        "closed: void it there and accept this one, or void this one, which leaves that as it is; accepted as it "
        f"stands, this one comes to {total}, and the rest of its period is not charged"
    )
    amounts = {"subtotal": stripe_invoice["subtotal"], "total": stripe_invoice["total"]}
    values = {"stripe_id": stripe_invoice["id"], "url": stripe_invoice.get("hosted_invoice_url"), **amounts}
    alert = Alert(
        key=key,
        kind=AlertKind.INVOICE_HELD,
        title=f"The invoice of {row.name} for {row.period} is held: {why}",
        details={"invoice": row.id, "of": row.name, "period": row.period, "why": why},
        at=now_ms() / 1000,
    )
    # The alert was raised before, so the row has this reason already.
    if not await raise_once(connection, alert):
        return
    if row.state == invoices.DRAFT:
        await invoices.transition(connection, row.id, row.state, invoices.HELD, held_why=why, **values)
    else:
        # It is held for another reason too, which the operator must still read.
        await invoices.update_invoice(connection, row.id, held_why=f"{row.held_why}; {why}", **values)


def _parse_amounts(stripe_invoice: StripeObject) -> dict[str, object]:
    """Return the columns for the amounts, the number and the times of an invoice finalized at Stripe."""
    is_due = stripe_invoice.get("status") in (invoices.OPEN, invoices.UNCOLLECTIBLE)
    times = stripe_invoice.get("status_transitions") or {}
    issued_at = times.get("finalized_at")
    before, after = (stripe_invoice.get(name) or 0 for name in ("starting_balance", "ending_balance"))
    return {
        "amount_due": stripe_invoice.get("amount_remaining", 0) if is_due else 0,
        "amount_paid": stripe_invoice.get("amount_paid", 0),
        "number": stripe_invoice.get("number"),
        "issued_at": issued_at,
        "due_at": stripe_invoice.get("due_date") or issued_at,
        "paid_at": times.get("paid_at"),
        "paid_off_stripe": stripe_invoice.get("amount_paid_off_stripe") or 0,
        "balance_applied": after - before if stripe_invoice.get("status") != invoices.VOID else 0,
    }


async def _raise_payment_failed(connection: AsyncConnection, row: InvoiceRow, stripe_invoice: StripeObject) -> None:
    """Raise the alert that a payment of an invoice failed which was not tried from here."""
    retry, failure = stripe_invoice.get("next_payment_attempt"), stripe_payments.find_failure(stripe_invoice)
    alert = Alert(
        key=f"payment-failed:{row.id}",
        kind=AlertKind.PAYMENT_FAILED,
        severity="warn",
        customer=row.name,
        title=f"{row.name}: the payment of {format_amount(stripe_invoice['total'], row.currency)} failed",
        at=now_ms() / 1000,
        details={
            "invoice": row.id,
            "stripe_id": stripe_invoice["id"],
            "total": stripe_invoice["total"],
            "amount": format_with_code(stripe_invoice["total"], row.currency),
            "why": failure.message,
            "decline_reason": failure.reason,
            "pay": stripe_invoice.get("hosted_invoice_url"),
            **({} if retry is None else {"next_payment_attempt": format_timestamp(int(retry) * 1000)}),
        },
    )
    await raise_once(connection, alert)


def build_paid_twice_alert(row: InvoiceRow, now: float) -> Alert:
    """Return the alert about an invoice that was paid through Stripe before a bank transfer could settle it."""
    return Alert(
        key=f"invoice-paid-twice:{row.id}",
        kind=AlertKind.INVOICE_PAID_TWICE,
        title=f"The invoice of {row.name} for {row.period} was paid at Stripe, and by a transfer too",
        details={"invoice": row.id, "of": row.name, "period": row.period, "stripe_id": row.stripe_id},
        at=now,
    )
