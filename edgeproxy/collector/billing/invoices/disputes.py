"""Disputes as rows, with their alerts and messages (dispute_states.py has the states).

Disputes of credit purchases are rows, too; credits/ books their money.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_alerts, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.billing.invoices import invoices as states
from edgeproxy.collector.billing.invoices.credit_notes import COUNTED
from edgeproxy.collector.billing.invoices.declined_payment import format_second
from edgeproxy.collector.billing.invoices.dispute_states import (
    INQUIRY,
    LOST,
    OPEN_STATES,
    UNANSWERED,
    WITHDRAWN,
    WON,
    Dispute,
    DisputeState,
    InvoiceDispute,
    ListedDispute,
    advance,
    to_response,
)
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.invoices.unexpected_objects import UnbookedPaymentError
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import credit_notes, disputes, invoices
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.schema import DAY, customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_page, parse_rows
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event
from edgeproxy.config.collector.currency_units import format_with_code

PAID_INVOICE: Final = "paid_invoice"
"""The key of a fetched dispute or refund for the paid Stripe invoice."""
OPEN: Final = "open"
"""The filter for all states before the bank's decision."""
REMINDER_SECONDS = 2 * DAY
"""Operators are paged this many seconds before the deadline if no answer was sent."""


class ReturnedPayment(NamedTuple):
    """The payment behind a dispute or a refund."""

    customer: str
    invoice: str | None
    purchase: str | None


FIELDS = [disputes.c[name] for name in Dispute._fields]


async def apply_stripe_dispute(connection: AsyncConnection, stripe_dispute: StripeObject, intent: str | None) -> None:
    """Store a dispute just fetched from Stripe, with alerts and messages about a change.

    `intent` is the payment intent of a credit purchase. Other disputes have PAID_INVOICE; disputes of foreign invoices
    are ignored. Raises UnbookedPaymentError if the dispute arrives before its invoice.
    """
    by_id = match_book_text(connection, disputes.c.stripe_id, str(stripe_dispute["id"]))
    row = (await connection.execute(lock_rows(sa.select(*FIELDS).where(by_id), of=disputes))).first()
    before = None if row is None else _parse_row(row)
    if before is None:
        subject = await find_subject(connection, stripe_dispute, intent)
        if subject is None:
            return
        created_at = int(stripe_dispute.get("created") or 0) * 1000 or now_ms()
        currency = str(stripe_dispute["currency"])
        current = Dispute(generate_id(), *subject, INQUIRY, 0, currency, "", None, 0, created_at, None)
    else:
        current = before
    # A dispute of credits takes nothing off an invoice. Its bookings are with the purchase.
    left = 0 if current.invoice is None else await _compute_left(connection, current)
    after = advance(current, stripe_dispute, left, now_ms() // 1000)
    if before is None:
        values = {**after._asdict(), "stripe_id": str(stripe_dispute["id"])}
        await connection.execute(sa.insert(disputes).values(values))
    elif after != before:
        await connection.execute(sa.update(disputes).where(disputes.c.id == after.id).values(after._asdict()))
    # Stripe also reports changes that nobody needs to hear of, for example of the evidence.
    if before is None or after.state is not before.state:
        await _report_change(connection, before, after, str(stripe_dispute["id"]))


def _parse_row(row: Iterable[object]) -> Dispute:
    dispute = Dispute._make(islice(row, len(FIELDS)))
    return dispute._replace(state=DisputeState(dispute.state))


async def find_subject(
    connection: AsyncConnection, payment_part: StripeObject, intent: str | None
) -> ReturnedPayment | None:
    """Return the payment behind a dispute or a refund, or None if it is not ours. Raises UnbookedPaymentError."""
    if intent is not None:
        purchase = sa.select(credit_grants.c.customer, credit_grants.c.id).where(credit_grants.c.payment == intent)
        grant = (await connection.execute(purchase)).first()
        return None if grant is None else ReturnedPayment(grant.customer, None, grant.id)
    invoice = await _find_paid_invoice(connection, payment_part)
    return None if invoice is None else ReturnedPayment(invoice.customer, invoice.id, None)


async def _find_paid_invoice(connection: AsyncConnection, payment_part: StripeObject) -> InvoiceRow | None:
    """Return the invoice behind a dispute or a refund, or None if it is not ours.

    Raises UnbookedPaymentError if the invoice's lines are not written yet.
    """
    stripe_invoice = payment_part.get(PAID_INVOICE)
    row = None if stripe_invoice is None else await states.find_own(connection, stripe_invoice)
    if row is not None and not await states.is_written(connection, row.id):
        raise UnbookedPaymentError(f"{payment_part['id']} is about the invoice {row.id}, which is not written yet")
    return row


async def _compute_left(connection: AsyncConnection, dispute: Dispute) -> int:
    """Return the part of an invoice that neither credit notes nor other disputes have taken off. Locks the invoice."""
    credited = states.sum_credit_notes(credit_notes.c.amount, COUNTED)
    # The dispute itself is left out: applied again, it must take off what it took off before.
    lost = states.sum_disputes(disputes.c.taken_off, {LOST}, disputes.c.id != dispute.id)
    statement = sa.select(invoices.c.total - credited - lost).where(invoices.c.id == dispute.invoice)
    return int((await connection.execute(lock_rows(statement, of=invoices))).scalar_one())


async def list_of_invoice(connection: AsyncConnection, invoice: str) -> list[InvoiceDispute]:
    """Return the disputes of an invoice in the form of the API, oldest first."""
    statement = sa.select(*FIELDS).where(disputes.c.invoice == invoice).order_by(disputes.c.id)
    rows = await connection.execute(statement)
    return parse_rows(disputes.name, rows, lambda row: to_response(_parse_row(row)), attrgetter("id"))


async def list_disputes(
    connection: AsyncConnection, after: str | None, limit: int, *, customer: str | None = None, state: str | None = None
) -> ReadPage[ListedDispute]:
    """Return at most `limit` disputes before the id `after`, newest first, of a customer, by id, and in a state.

    The state `open` stands for all states before the bank's decision.
    """
    statement = sa.select(*FIELDS, disputes.c.stripe_id, customers.c.name)
    statement = statement.join_from(disputes, customers, customers.c.id == disputes.c.customer)
    if customer is not None:
        statement = statement.where(disputes.c.customer == customer)
    if state is not None:
        statement = statement.where(disputes.c.state.in_(OPEN_STATES if state == OPEN else [state]))
    if after is not None:
        statement = statement.where(disputes.c.id < after)
    rows = (await connection.execute(statement.order_by(disputes.c.id.desc()).limit(limit + 1))).all()
    return parse_page(disputes.name, rows, limit, _list_row, attrgetter("id"))


def _list_row(row: Iterable[object]) -> ListedDispute:
    dispute = _parse_row(row)
    *_, stripe_id, name = row
    return {
        **to_response(dispute),
        "customer": str(name),
        "invoice": dispute.invoice,
        "purchase": dispute.purchase,
        "currency": dispute.currency,
        "stripe_id": cast("str | None", stripe_id),
    }


# ---- alerts and messages


async def _report_change(connection: AsyncConnection, before: Dispute | None, after: Dispute, stripe_id: str) -> None:
    """Raise the alert about a new or decided dispute, and enqueue the customer's webhook event."""
    # An inquiry that becomes a dispute takes the money, so it is reported like a new one.
    is_escalated = before is not None and before.state is INQUIRY and after.state in WITHDRAWN
    # The alert and the message were sent when the dispute was opened.
    if after.state in OPEN_STATES and before is not None and not is_escalated:
        return
    statement = sa.select(customers.c.name).where(customers.c.id == after.customer)
    name = str((await connection.execute(statement)).scalar_one())
    await raise_alerts(connection, [build_alert(name, after, stripe_id, now_ms() / 1000)])
    event_type = EventType.DISPUTE_OPENED if after.state in OPEN_STATES else EventType.DISPUTE_CLOSED

    async def build_data() -> Mapping[str, object]:
        about = {"customer": name, "invoice": after.invoice, "purchase": after.purchase, "currency": after.currency}
        # The deadline is for operators, who answer the bank.
        return {**about, **to_response(after._replace(answer_by=None))}

    await enqueue_event(connection, after.customer, event_type, now_ms(), build_data)


def build_alert(name: str, dispute: Dispute, stripe_id: str | None, now: float, *, is_reminder: bool = False) -> Alert:
    """Return the alert about a dispute of a customer, by name, at the Unix second `now`."""
    amount = format_with_code(dispute.amount, dispute.currency)
    payment = "an invoice" if dispute.purchase is None else "credits"
    answer_by = format_second(dispute.answer_by)
    details = {
        "dispute": dispute.id,
        "stripe_id": stripe_id,
        "of": name,
        "invoice": dispute.invoice,
        "purchase": dispute.purchase,
        "amount": amount,
        "reason": dispute.reason,
        "state": dispute.state,
        "answer_by": answer_by,
    }
    if dispute.state in OPEN_STATES:
        kind: AlertKind = AlertKind.PAYMENT_DISPUTED
        severity: Severity = "page" if is_reminder else "warn"
        what = "asks about" if dispute.state is INQUIRY else "has taken back"
        title = f"The bank of {name} {what} a payment of {amount} for {payment}"
        title += "" if answer_by is None else f": answer at Stripe by {answer_by}"
    else:
        kind, severity = AlertKind.DISPUTE_CLOSED, "warn" if dispute.state is LOST else "info"
        result = {WON: "is won", LOST: "is lost"}.get(dispute.state, "has ended as an inquiry")
        title = f"The dispute of {name} over {amount} for {payment} {result}"
    return Alert(
        key=f"{kind}:{dispute.id}:{'reminder' if is_reminder else dispute.state}",
        kind=kind,
        severity=severity,
        title=title,
        details={key: value for key, value in details.items() if value is not None},
        at=now,
    )


async def is_reminder_due(connection: AsyncConnection, now: float) -> bool:
    """Return whether the deadline of an unanswered dispute is near."""
    return (await connection.execute(sa.select(disputes.c.id).where(_needs_reminder(now)).limit(1))).first() is not None


def _needs_reminder(now: float) -> sa.ColumnElement[bool]:
    is_due = disputes.c.answer_by.between(int(now), int(now) + REMINDER_SECONDS)
    return disputes.c.state.in_(UNANSWERED) & is_due


async def raise_reminders(connection: AsyncConnection, now: float) -> None:
    """Page the operators about unanswered disputes, REMINDER_SECONDS before the deadline."""
    statement = sa.select(*FIELDS, disputes.c.stripe_id, customers.c.name)
    statement = statement.join_from(disputes, customers, customers.c.id == disputes.c.customer)
    statement = statement.where(_needs_reminder(now))
    rows = await connection.execute(statement)

    def build_reminder(row: Iterable[object]) -> Alert:
        *_, stripe_id, name = row
        return build_alert(str(name), _parse_row(row), cast("str | None", stripe_id), now, is_reminder=True)

    await raise_alerts(connection, parse_rows(disputes.name, rows, build_reminder, attrgetter("id")))


async def count_by_state(connection: AsyncConnection) -> dict[str, int]:
    """Return the number of disputes in each state."""
    counted = await connection.execute(sa.select(disputes.c.state, sa.func.count()).group_by(disputes.c.state))
    return dict.fromkeys(map(str, DisputeState), 0) | {row[0]: row[1] for row in counted}


async def report_failed_refund(connection: AsyncConnection, refund: StripeObject) -> None:
    """Raise the alert that the money of an invoice's refund came back to us. Ignores refunds of foreign invoices."""
    invoice = await _find_paid_invoice(connection, refund)
    if invoice is None:
        return
    amount = format_amount(int(refund["amount"]), str(refund["currency"]))
    alert = Alert(
        key=f"refund-failed:{refund['id']}",
        kind=AlertKind.REFUND_FAILED,
        title=f"A refund of {amount} of an invoice of {invoice.name} failed: {refund.get('failure_reason')}",
        details={"invoice": invoice.id, "of": invoice.name, "amount": amount, "stripe_id": refund["id"]},
        at=now_ms() / 1000,
    )
    await raise_once(connection, alert)
