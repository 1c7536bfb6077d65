"""Invoice rows: their states, their creation, and the states that Stripe reports.

    draft ──▶ closing ──▶ open ──▶ paid
      │          │ ▲        └────▶ uncollectible
      │          ▼ │ accepted
      │         held ──▶ voiding ──▶ void
      └──▶ waived: the customer is not charged

    open, uncollectible ──▶ settling ──▶ paid, by a bank transfer
    open ──▶ writing_off ──▶ uncollectible

A draft has no lines yet, because usage may still change it. Closing a draft writes its lines once; they never change
afterwards. TRANSITIONS lists all allowed steps, and `transition` makes them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Final, NotRequired

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import line_rows
from edgeproxy.collector.billing.invoices.acceptance import Acceptance
from edgeproxy.collector.billing.invoices.credit_notes import MADE, InvoiceCreditNote
from edgeproxy.collector.billing.invoices.declined_payment import DeclinedPayment, build_declined, format_second
from edgeproxy.collector.billing.invoices.dispute_states import LOST, WITHDRAWN, InvoiceDispute
from edgeproxy.collector.billing.invoices.invoice_notice import notify_of_payment, notify_payers
from edgeproxy.collector.billing.invoices.invoice_order import NEWEST_FIRST, order_invoices
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow, InvoiceState
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine
from edgeproxy.collector.billing.mismatch import InvoiceDifference
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import RatedLine, Span, sum_amounts
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import credit_notes, disputes, dunning, invoice_lines, invoices
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.schema import INTEGER, customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_page, parse_word, reading_row
from edgeproxy.collector.problems import billing_codes
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event
from edgeproxy.config.collector.currency_units import DECIMALS

DRAFT, CLOSING, HELD, OPEN, PAID = "draft", "closing", "held", "open", "paid"
VOIDING, VOID, WAIVED, UNCOLLECTIBLE = "voiding", "void", "waived", "uncollectible"
SETTLING, WRITING_OFF = MARKING = "settling", "writing_off"
STATES_BY_STRIPE = {"open": OPEN, "paid": PAID, "void": VOID, "uncollectible": UNCOLLECTIBLE}
"""Our states by Stripe's state, for finalized invoices."""
_SETTLED = frozenset(STATES_BY_STRIPE.values())
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    DRAFT: frozenset({CLOSING, HELD}),
    CLOSING: frozenset({HELD, WAIVED}) | _SETTLED,
    # A person may finalize at Stripe an invoice that is held here. Stripe's state is then decisive.
    HELD: frozenset({DRAFT, CLOSING, VOIDING}) | _SETTLED,
    WAIVED: _SETTLED,
    OPEN: frozenset({PAID, VOID, UNCOLLECTIBLE, VOIDING, SETTLING, WRITING_OFF}),
    UNCOLLECTIBLE: frozenset({PAID, VOID, VOIDING, SETTLING}),
    # A late report of Stripe's earlier state must not undo a person's decision.
    VOIDING: frozenset({PAID, VOID}),
    SETTLING: frozenset({PAID, VOID}),
    WRITING_OFF: frozenset({PAID, VOID, UNCOLLECTIBLE}),
    PAID: frozenset({VOID, UNCOLLECTIBLE}),
    VOID: frozenset(),
}
"""The states that may follow each state.

A settled invoice never returns to open, in whatever order Stripe's events arrive.
"""
DECIDED: Final[Mapping[str, str]] = {VOIDING: VOID, SETTLING: PAID, WRITING_OFF: UNCOLLECTIBLE}
"""The state that a person chose, by the interim state until Stripe has adopted it."""
EVENT_TYPES: Final[Mapping[str, EventType]] = {
    PAID: EventType.INVOICE_PAID,
    VOID: EventType.INVOICE_VOIDED,
    UNCOLLECTIBLE: EventType.INVOICE_UNCOLLECTIBLE,
}
"""The type of the webhook event for each state."""
INVOICE_METADATA: Final = "edgeproxy_invoice"
"""The metadata key that holds our invoice id on Stripe's invoice."""
NOT_THERE = "there is no such invoice"
STRIPE_REFUSES, NO_TAX = "Stripe refuses:", "Stripe does not know the tax"
"""Prefixes of the reasons to hold an invoice. Metrics count invoices by them."""
NOT_RATED = "some usage cannot be billed:"
"""The prefix of the reasons to hold an invoice without lines. Once accepted, it is rated without the faulty usage."""


class InvoiceStateError(Exception):
    """The invoice cannot make this transition from its state."""


class Invoice(TypedDict):
    """An invoice. Lists of invoices leave out its lines."""

    id: str
    """The id of the invoice."""
    customer: str
    """The customer, by name."""
    period: str
    """The first day of the period in UTC, such as 2027-03-01."""
    kind: str
    """The kind of the invoice, such as an invoice for a whole period."""
    state: InvoiceState
    """`open`, `paid`, and so on; `voiding`, `settling` and `writing_off` until Stripe has a person's decision."""
    subtotal: int
    """The sum of the lines, in the smallest unit of the currency, such as cents, before tax."""
    total: int
    """The sum of the invoice, in the smallest unit, with tax."""
    amount_due: int
    """The sum still to be paid, in the smallest unit."""
    amount_paid: int
    """The sum paid, in the smallest unit. Refunds do not lower it."""
    amount_credited: int
    """The sum that credit notes took back, in the smallest unit."""
    amount_refunded: int
    """The part of the credited sum that was paid back, in the smallest unit."""
    amount_disputed: int
    """The sum of payments that a bank holds until it decides a dispute, in the smallest unit."""
    amount_lost: int
    """The sum that lost disputes took back, in the smallest unit. It stays unpaid."""
    balance_applied: int
    """The sum taken from the customer's balance at Stripe, in the smallest unit; negative if the invoice added to the
    balance.
    """
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    closes_at: str | None
    """The time when the invoice is closed. Usage that arrives before it is on the invoice."""
    held_why: str | None
    """The reason why the invoice was held; null for customers."""
    voided_why: str | None
    """The reason why the invoice was voided; null for customers."""
    accepted_why: str | None
    """The reason why a held invoice was accepted; null for customers."""
    stripe_id: str | None
    """The id of the invoice at Stripe; null until Stripe has it."""
    url: str | None
    """The invoice's page at Stripe; null until the invoice is open."""
    number: str | None
    """The number that Stripe prints on the invoice; null until the invoice is open."""
    issued_at: str | None
    """The time when the invoice was issued; null until it is open."""
    due_at: str | None
    """The time when the invoice is due; null until it is open. An invoice that is charged automatically is due when it
    is issued.
    """
    paid_at: str | None
    """The time when the invoice was paid; null until then."""
    declined: DeclinedPayment | None
    """The declined payments of the invoice; null if none was declined."""
    created_at: str | None
    """The time when the invoice was created."""
    lines: NotRequired[list[InvoiceLine]]
    """The lines; missing in a list of invoices."""
    credit_notes: NotRequired[list[InvoiceCreditNote]]
    """The credit notes, oldest first; missing in a list of invoices."""
    disputes: NotRequired[list[InvoiceDispute]]
    """The disputes of its payments, oldest first; missing in a list of invoices."""
    differences: NotRequired[list[InvoiceDifference]]
    """The lines that differ at Stripe, the largest difference first; only for a held invoice, and for operators."""
    acceptance: NotRequired[Acceptance]
    """The invoice that goes out on acceptance, or that went out just now; only for a held invoice, and for operators.
    """


class InvoiceList(TypedDict):
    """A page of invoices, newest first."""

    invoices: list[Invoice]
    """The invoices of this page, newest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


def sum_credit_notes(column: sa.ColumnElement[int], states: Collection[str] = (MADE,)) -> sa.ColumnElement[int]:
    """Return the sum of `column` over an invoice's credit notes in these states, as an SQL column."""
    is_counted = (credit_notes.c.invoice == invoices.c.id) & credit_notes.c.state.in_(states)
    total = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(is_counted).scalar_subquery()
    return sa.cast(total, INTEGER)  # PostgreSQL returns sums as another type.


def sum_disputes(
    column: sa.ColumnElement[int], states: Collection[str], *conditions: sa.ColumnElement[bool]
) -> sa.ColumnElement[int]:
    """Return the sum of `column` over an invoice's disputes in these states, as an SQL column."""
    is_counted = (disputes.c.invoice == invoices.c.id) & disputes.c.state.in_(states)
    total = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(is_counted, *conditions).scalar_subquery()
    return sa.cast(total, INTEGER)


CREDITED = sum_credit_notes(credit_notes.c.amount).label("credited")
REFUNDED = sum_credit_notes(credit_notes.c.refunded).label("refunded")
DISPUTED = sum_disputes(disputes.c.amount, WITHDRAWN).label("disputed")
AMOUNT_LOST = sum_disputes(disputes.c.taken_off, {LOST}).label("lost")
IS_WRITTEN = invoices.c.state.not_in((DRAFT, HELD, VOIDING)) | sa.exists().where(
    invoice_lines.c.invoice == invoices.c.id
)
"""The lines of the invoice are written. Drafts and invoices that were held as drafts have none."""
HAS_CURRENCY = invoices.c.currency.in_(sorted(DECIMALS))
"""The condition of sums by currency. Invoices with an unknown one are set aside (reconciliation/stored_words.py)."""


async def create_invoice(
    connection: AsyncConnection,
    customer: str,
    subscription: str,
    kind: str,
    period: Span,
    lines: Sequence[RatedLine] | None,
    *,
    currency: str,
    now: float,
    freeze: float = 0.0,
    costs: bool = True,
) -> str:
    """Create an invoice of a subscription and return its id.

    Without `lines` it is a draft until `freeze` seconds after the period. With `lines` it closes now.

    `costs` is False if nothing can be due; Stripe then gets the invoice only when it closes, not as a draft before.
    Raises IntegrityError if the customer already has an invoice of this kind for this period.
    """
    # A plan that ended at once has its last invoice now, not at the end of its period.
    end = min(period.end, int(now)) if lines is None else int(now)
    closes_at = end + int(freeze)
    row = {
        "id": generate_id(),
        "customer": customer,
        "subscription": subscription,
        "period": periods.format_period(period),
        "kind": kind,
        "state": DRAFT,
        **dict.fromkeys(("subtotal", "total", "tries", "failures"), 0),
        "currency": currency,
        "period_start": period.start,
        "period_end": period.end,
        "closes_at": closes_at,
        "try_at": 0 if costs else closes_at,
        "created_at": now_ms(),
    }
    await connection.execute(sa.insert(invoices), [row])
    if lines is not None:
        await write_lines(connection, str(row["id"]), lines, currency)
    return str(row["id"])


async def choose_kind(connection: AsyncConnection, customer: str, period: Span, kind: str) -> str:
    """Return the kind of the next invoice of this sort in the period: `change`, `change-2`, and so on."""
    columns = invoices.c
    of_period = (columns.customer == customer, columns.period == periods.format_period(period))
    is_such = (columns.kind == kind) | columns.kind.startswith(f"{kind}-")
    count = (await connection.execute(sa.select(sa.func.count()).where(*of_period, is_such))).scalar_one()
    # Customer, period and kind identify an invoice, so a further one of this sort needs a kind of its own.
    return f"{kind}-{count + 1}" if count else kind


async def write_lines(connection: AsyncConnection, number: str, lines: Sequence[RatedLine], currency: str) -> None:
    """Write the lines of a draft and close it. The lines never change again; later usage goes on the next invoice."""
    await line_rows.insert_lines(connection, number, lines, currency)
    amount = sum_amounts(lines)
    await transition(connection, number, DRAFT, CLOSING, subtotal=amount, total=amount)


async def update_invoice(connection: AsyncConnection, number: str, /, **values: object) -> None:
    """Update columns of an invoice, except `state`, which only `transition` changes."""
    assert "state" not in values
    await connection.execute(sa.update(invoices).where(invoices.c.id == number).values(**values))


async def transition(connection: AsyncConnection, number: str, before: str, after: str, /, **values: object) -> None:
    """Move an invoice to another state and update these columns.

    Raises InvoiceStateError if the step is not allowed.
    """
    if after not in TRANSITIONS[before]:
        raise InvoiceStateError(f"an invoice cannot go from {before} to {after}")
    # The condition on the state makes the step atomic. A transaction that came too late changes no row.
    statement = sa.update(invoices).where(invoices.c.id == number, invoices.c.state == before)
    customer = await connection.scalar(statement.values(state=after, **values).returning(invoices.c.customer))
    if customer is None:
        raise InvoiceStateError(f"the invoice {number} is not {before} any more")
    # A person has decided otherwise, and should learn that Stripe did not follow.
    if after not in (before, DECIDED.get(before, after)):
        row = await get_invoice(connection, number)
        await raise_once(connection, build_decision_alert(row, DECIDED[before], f"it is {after} at Stripe"))

    async def build_data() -> Mapping[str, object]:
        row = await get_invoice(connection, number)
        # The event goes to the customer. These reasons are for operators only.
        return to_response(row._replace(held_why=None, voided_why=None, accepted_why=None))

    for event_type in list_event_types(before, after):
        await enqueue_event(connection, customer, event_type, now_ms(), build_data)
        if event_type is EventType.INVOICE_CREATED:
            await notify_payers(connection, await get_invoice(connection, number))
        if event_type is EventType.INVOICE_PAID:
            # A row that cannot be read is paid all the same.
            for row in await fetch_invoices(connection, invoices.c.id == number):
                await notify_of_payment(connection, row)


def build_decision_alert(row: InvoiceRow, decided: str, why: str) -> Alert:
    """Return the alert that Stripe did not adopt the state that a person chose for an invoice."""
    return Alert(
        key=f"decision-failed:{row.id}:{decided}",
        kind=AlertKind.DECISION_FAILED,
        title=f"The invoice of {row.name} for {row.period} was to become {decided}: {why}",
        details={"invoice": row.id, "of": row.name, "period": row.period, "decided": decided, "why": why},
        at=now_ms() / 1000,
    )


def list_event_types(before: str, after: str) -> list[EventType]:
    """Return the types of the customer's webhook events for a transition."""
    # A customer sees an invoice once it is final. Drafts and held ones may still change.
    is_new = before in (CLOSING, HELD) and after in _SETTLED and after != VOID
    return list(filter(None, [EventType.INVOICE_CREATED if is_new else None, EVENT_TYPES.get(after)]))


def to_response(
    row: InvoiceRow, lines: Iterable[RatedLine] | None = None, notes: Sequence[InvoiceCreditNote] | None = None
) -> Invoice:
    """Return an invoice in the form of the API. Raises UnreadableRowError."""
    with reading_row(invoices.name, row.id):
        parse_word(row.currency, DECIMALS)
        response: Invoice = {
            "id": row.id,
            "customer": row.name,
            "period": row.period,
            "kind": row.kind,
            "state": row.state,
            "subtotal": row.subtotal,
            "total": row.total,
            "amount_due": row.amount_due,
            "amount_paid": row.amount_paid,
            "amount_credited": row.credited,
            "amount_refunded": row.refunded,
            "amount_disputed": row.disputed,
            "amount_lost": row.lost,
            "balance_applied": row.balance_applied,
            "currency": row.currency,
            "period_start": format_timestamp(row.period_start * 1000),
            "period_end": format_timestamp(row.period_end * 1000),
            "closes_at": format_timestamp(row.closes_at * 1000),
            "held_why": row.held_why,
            "voided_why": row.voided_why,
            "accepted_why": row.accepted_why,
            "stripe_id": row.stripe_id,
            "url": row.url,
            "number": row.number,
            "issued_at": format_second(row.issued_at),
            "due_at": format_second(row.due_at),
            "paid_at": format_second(row.paid_at),
            "declined": build_declined(row.declines, row.declined_at, row.retry_at, row.decline_reason),
            "created_at": format_timestamp(row.created_at),
        }
        if lines is not None:
            response["lines"] = [line_rows.line_to_response(line, row.currency) for line in lines]
        if notes is not None:
            response["credit_notes"] = [*notes]
        return response


async def fetch_invoices(
    connection: AsyncConnection,
    *conditions: sa.ColumnElement[bool] | sa.TextClause,
    limit: int | None = None,
    sort: str = "created_at",
    after: str | None = None,
    lock: bool = False,
) -> list[InvoiceRow]:
    """Return at most `limit` invoices that meet all conditions, by `sort` after the id `after`.

    `lock` locks the rows.
    """
    joined = invoices.join(customers, customers.c.id == invoices.c.customer)
    joined = joined.outerjoin(dunning, dunning.c.invoice == invoices.c.id)
    declined = (dunning.c.declines, dunning.c.declined_at, dunning.c.retry_at, dunning.c.why)
    own = [invoices.c[name] for name in InvoiceRow._fields if name in invoices.c]
    statement = (
        sa.select(*own, customers.c.name, CREDITED, REFUNDED, DISPUTED, AMOUNT_LOST, *declined)
        .select_from(joined)
        .where(*conditions)
    )
    statement = (await order_invoices(connection, statement, sort, after)).limit(limit)
    if lock:
        statement = lock_rows(statement, of=invoices)
    return [InvoiceRow._make(row) for row in await connection.execute(statement)]


async def get_invoice(connection: AsyncConnection, number: str, *, lock: bool = False) -> InvoiceRow:
    """Return an invoice. Raises ChangeRejectedError if it does not exist."""
    rows = await fetch_invoices(connection, invoices.c.id == number, lock=lock) if is_id(number) else []
    if not rows:
        raise ChangeRejectedError(billing_codes.INVOICE_NOT_FOUND, NOT_THERE)
    return rows[0]


async def find_own(
    connection: AsyncConnection, stripe_invoice: StripeObject, *, lock: bool = False
) -> InvoiceRow | None:
    """Find our invoice for an invoice of Stripe, or return None if there is none or it was replaced."""
    condition = match_book_text(connection, invoices.c.stripe_id, stripe_invoice["id"])
    number = (stripe_invoice.get("metadata") or {}).get(INVOICE_METADATA)
    if isinstance(number, str):
        # A crash may have come between the creation at Stripe and the write of its id here. The metadata finds the row
        # then.
        condition |= invoices.c.id == number
    rows = await fetch_invoices(connection, condition, lock=lock)
    return rows[0] if rows and stripe_invoice["id"] not in rows[0].replaced_ids.split(",") else None


async def is_written(connection: AsyncConnection, number: str) -> bool:
    """Return whether the lines of an invoice are written."""
    return bool((await connection.execute(sa.select(IS_WRITTEN).where(invoices.c.id == number))).scalar_one())


async def find_owner(connection: AsyncConnection, number: str) -> str | None:
    """Return the name of an invoice's customer, or None if the invoice does not exist."""
    if not is_id(number):
        return None
    rows = await fetch_invoices(connection, invoices.c.id == number)
    return rows[0].name if rows else None


async def list_invoices(
    connection: AsyncConnection,
    after: str | None,
    limit: int,
    *,
    sort: str = NEWEST_FIRST,
    number: str | None = None,
    **only: str | None,
) -> ReadPage[Invoice]:
    """Return at most `limit` invoices after an id, in the order of `sort`. `only` filters by equal column values."""
    conditions = [invoices.c[name] == value for name, value in only.items() if value is not None]
    if number is not None:
        conditions.append(match_book_text(connection, invoices.c.number, number))
    # The row beyond the limit shows that there is a next page.
    rows = await fetch_invoices(connection, *conditions, limit=limit + 1, sort=sort, after=after)
    return parse_page(invoices.name, rows, limit, to_response, attrgetter("id"))
