"""Dunning: the collection of unpaid invoices.

A declined payment is retried on a schedule, and at once with another payment method. A mailed invoice is charged when
it is due, if its customer has a payment method by then. A customer with an open invoice is paused with 402 after the
payment grace, and released once nothing is unpaid.

    declined ──▶ retrying ──▶ exhausted
                    │ ▲           │
                    ▼ │           ▼
    due ──────────▶ scheduled ◀───┘

The debit of a bank account takes days: each try may lead to `processing`, until it is paid or declined.

TRANSITIONS lists all steps of an open invoice, and `advance` makes them. An invoice that is no longer open has left
dunning, whatever its row says. Pauses and releases have no state of their own: they follow from the invoices, and from
the customer's current pause.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices as states
from edgeproxy.collector.billing.invoices import stripe_payments
from edgeproxy.collector.billing.invoices.declines import PaymentFailure
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe.customers import find_payment_method
from edgeproxy.collector.database.billing_tables import billing_customers, billing_details, invoices
from edgeproxy.collector.database.billing_tables import dunning as table
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.database import build_insert_new, build_upsert
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.collector.currency_units import format_with_code
from edgeproxy.config.collector.settings import CollectorSettings

CALLER = Caller("billing")
UNPAID = 402
WHY = "An invoice is unpaid. Service goes on once it is paid."
"""The text that a paused customer reads. Pauses with another text are never ended here."""
IS_REFUSED = customers_table.c.settings.like(f'%"why":"{WHY}"%')
"""Matches the customers who are paused for unpaid invoices."""
TAKEN_MAX = 500
"""The most customers that one transaction pauses or releases."""
LOOK_SECONDS = 86400
"""A payment under way is checked after this many seconds, unless Stripe reports its result before."""


class DunningState(StrEnum):
    """The state of an open invoice that is charged to a payment method."""

    SCHEDULED = "scheduled"
    """The payment is tried at `retry_at` with a payment method that has not been declined."""
    RETRYING = "retrying"
    """The payment is tried again at `retry_at` with the declined payment method."""
    EXHAUSTED = "exhausted"
    """Every retry was declined. The invoice waits for another payment method, or for a payment by the customer."""
    PROCESSING = "processing"
    """A payment is under way, such as the debit of a bank account. It is checked at `retry_at`."""


class DunningEvent(StrEnum):
    """Events of an open invoice."""

    DECLINED = "declined"
    METHOD_CHANGED = "method_changed"
    """The customer has another payment method than the declined one."""
    DUE = "due"
    """The invoice was mailed and is due, and the customer has a payment method by now."""
    BEGUN = "begun"
    """A payment is under way, and its bank has not answered yet."""


SCHEDULED, RETRYING, EXHAUSTED = DunningState.SCHEDULED, DunningState.RETRYING, DunningState.EXHAUSTED
PROCESSING = DunningState.PROCESSING
DECLINED, METHOD_CHANGED, DUE = DunningEvent.DECLINED, DunningEvent.METHOD_CHANGED, DunningEvent.DUE
BEGUN = DunningEvent.BEGUN
TRANSITIONS: Final[Mapping[tuple[DunningState | None, DunningEvent], frozenset[DunningState]]] = {
    (None, DECLINED): frozenset({RETRYING, EXHAUSTED}),
    (None, DUE): frozenset({SCHEDULED}),
    (None, BEGUN): frozenset({PROCESSING}),
    (SCHEDULED, DECLINED): frozenset({RETRYING, EXHAUSTED}),
    (SCHEDULED, METHOD_CHANGED): frozenset({SCHEDULED}),
    (SCHEDULED, BEGUN): frozenset({PROCESSING}),
    (RETRYING, DECLINED): frozenset({RETRYING, EXHAUSTED}),
    (RETRYING, METHOD_CHANGED): frozenset({SCHEDULED}),
    (RETRYING, BEGUN): frozenset({PROCESSING}),
    (PROCESSING, DECLINED): frozenset({RETRYING, EXHAUSTED}),
    (PROCESSING, BEGUN): frozenset({PROCESSING}),
    (EXHAUSTED, METHOD_CHANGED): frozenset({SCHEDULED}),
}
"""The states after an event. After a decline the invoice is EXHAUSTED if the schedule has no later time."""


class DunningStateError(Exception):
    """The event is impossible in the state of the invoice."""


class Dunning(NamedTuple):
    """The dunning of an invoice. Times are Unix seconds."""

    state: DunningState
    declines: int
    declined_at: int
    """The time of the first decline, which the schedule starts from; before a decline, the time of the first try."""
    retry_at: int | None


def advance(before: Dunning | None, event: DunningEvent, now: int, schedule: Sequence[float] = ()) -> Dunning:
    """Return the dunning of an invoice after an event. `schedule` has the seconds from the first decline to each retry.

    Raises DunningStateError if TRANSITIONS has no such step.
    """
    state = None if before is None else before.state
    if (state, event) not in TRANSITIONS:
        raise DunningStateError(f"the payment of an invoice that is {state} cannot be {event}")
    declines, first = (before.declines, before.declined_at) if before is not None and before.declines else (0, now)
    # A payment under way ends no series of declines: their number and first time stay.
    if event is BEGUN:
        return Dunning(PROCESSING, declines, first, now + LOOK_SECONDS)
    if event is not DECLINED:
        return Dunning(SCHEDULED, declines, first, now)
    # The schedule starts at the first decline. Times that have passed, for example during an outage, are skipped.
    retry_at = min((first + int(delay) for delay in schedule if first + int(delay) > now), default=None)
    return Dunning(EXHAUSTED if retry_at is None else RETRYING, declines + 1, first, retry_at)


async def list_due_invoices(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Return the ids of mailed invoices that are due by this Unix second and not charged yet, at most `limit`.

    Only invoices of customers with a payment method are returned.
    """
    column, details = invoices.c, billing_details.c
    is_due = (column.state == states.OPEN) & (column.amount_due > 0) & (column.due_at <= int(now))
    is_mailed = column.due_at > column.issued_at  # Other invoices are due when they are issued.
    # Without a method the customer pays the mailed invoice by hand.
    has_method = sa.exists().where(details.customer == column.customer, details.payment_method.is_not(None))
    is_tried = sa.exists().where(table.c.invoice == column.id)
    statement = sa.select(column.id).where(is_due, is_mailed, has_method, ~is_tried).limit(limit)
    return list(await connection.scalars(statement))


async def schedule_payments(connection: AsyncConnection, numbers: Sequence[str], now: float) -> None:
    """Schedule the charge of these due invoices, by id, at this Unix second, unless they were charged before."""
    rows = [{"invoice": number, **advance(None, DUE, int(now))._asdict(), "why": ""} for number in numbers]
    await connection.execute(build_insert_new(connection, table, "invoice"), rows)


class Retry(NamedTuple):
    """A payment to try, or to check if it is under way."""

    row: InvoiceRow
    retry_at: int
    is_processing: bool


async def list_retries(connection: AsyncConnection, now: float, limit: int) -> list[Retry]:
    """Return the open invoices whose payment must be tried or checked by this Unix second, at most `limit`."""
    column = table.c
    states_tried = (SCHEDULED, RETRYING, PROCESSING)
    is_due = sa.select(column.invoice).where(column.state.in_(states_tried), column.retry_at <= int(now))
    is_open = invoices.c.state == states.OPEN
    rows = await states.fetch_invoices(connection, is_open, invoices.c.id.in_(is_due), limit=limit)
    statement = sa.select(column.invoice, column.retry_at, column.state).where(column.invoice.in_(is_due))
    tries = {one.invoice: one for one in await connection.execute(statement)}
    return [Retry(row, tries[row.id].retry_at, tries[row.id].state == PROCESSING) for row in rows]


async def put_off_retry(connection: AsyncConnection, retry: Retry, until: int) -> None:
    """Postpone a retry with an unknown result, unless another one was scheduled meanwhile."""
    # The time in the condition: a customer who changes the card meanwhile must not wait.
    statement = sa.update(table).where(table.c.invoice == retry.row.id, table.c.retry_at == retry.retry_at)
    await connection.execute(statement.values(retry_at=until))


async def record_try(
    connection: AsyncConnection,
    row: InvoiceRow,
    stripe_invoice: StripeObject,
    now: float,
    schedule: Sequence[float],
    *,
    retry_at: int | None = None,
) -> None:
    """Record the result of a try to pay an invoice that is still open.

    A payment under way is checked later, and a decline raises an alert for the operator and the customer.
    `stripe_invoice` is the result of `pay_invoice`. `retry_at` is the scheduled time of the try. If another try was
    scheduled meanwhile, the result is not recorded.
    """
    before = await _fetch_dunning(connection, row.id)
    # Another try was scheduled while Stripe was asked, for example because the customer has a new card.
    if (None if before is None else before.retry_at) != retry_at:
        return
    failure: PaymentFailure | None = stripe_invoice["edgeproxy_refused"]
    after = advance(before, BEGUN if failure is None else DECLINED, int(now), schedule)
    method = find_payment_method(stripe_invoice["customer"])
    is_ended = before is not None and before.state is PROCESSING and failure is not None
    # The customer may have a new payment method since, whose event has already passed.
    if is_ended and method is not None:
        own = sa.select(table.c.payment_method).where(table.c.invoice == row.id)
        if (await connection.execute(own)).scalar_one() not in (None, method):
            after = advance(after, METHOD_CHANGED, int(now))
    values: dict[str, object] = {"invoice": row.id, **after._asdict()}
    if failure is not None:
        values["why"] = failure.reason.value
    # While a payment is under way, the stored method is the one that it uses.
    if is_ended or before is None or before.state is not PROCESSING:
        values["payment_method"] = method
    if before is None:
        await connection.execute(build_upsert(connection, table, {"why": "", **values}, "invoice"))
    else:  # While a payment is under way, the reason of the last decline stays.
        await connection.execute(sa.update(table).where(table.c.invoice == row.id).values(values))
    if failure is not None:
        await raise_once(connection, _build_alert(row, stripe_invoice, after, failure, now))


async def apply_stripe_invoice(connection: AsyncConnection, stripe_invoice: StripeObject, now: float) -> None:
    """Schedule a check of an open invoice's payment, because Stripe reports a change.

    A payment under way may have failed. That includes an invoice that was charged by an older version, which did not
    know payments that take days.
    """
    is_charged = stripe_invoice.get("collection_method") == "charge_automatically"
    is_ended = stripe_invoice.get("status") == states.OPEN and not stripe_payments.is_under_way(stripe_invoice)
    # An invoice that was never charged has nothing to check.
    if not is_ended or not stripe_invoice.get("attempt_count"):
        return
    is_own = match_book_text(connection, invoices.c.stripe_id, stripe_invoice["id"])
    own = sa.select(invoices.c.id).where(is_own, invoices.c.state == states.OPEN)
    number = await connection.scalar(own)
    if number is None:
        return
    is_tried = (table.c.invoice == number) & (table.c.state == PROCESSING)
    await connection.execute(sa.update(table).where(is_tried).values(retry_at=int(now)))
    if is_charged and not stripe_invoice.get("auto_advance"):  # Otherwise Stripe retries it.
        begun = advance(None, BEGUN, int(now))._replace(retry_at=int(now))
        insert = build_insert_new(connection, table, "invoice")
        await connection.execute(insert, [{"invoice": number, **begun._asdict(), "why": ""}])


async def is_tried(connection: AsyncConnection, number: str) -> bool:
    """Return whether dunning handles the payment of an invoice, so that it also raises the alerts about it."""
    statement = sa.select(table.c.invoice).where(table.c.invoice == number)
    return (await connection.execute(statement)).first() is not None


def _build_alert(
    row: InvoiceRow, stripe_invoice: StripeObject, after: Dunning, failure: PaymentFailure, now: float
) -> Alert:
    """Return the alert of a declined payment, with the link to pay the invoice."""
    next_try = "it is not tried again" if after.retry_at is None else "it is tried again"
    details = {
        "invoice": row.id,
        "period": row.period,
        "amount": format_with_code(stripe_invoice["amount_remaining"], row.currency),
        "why": failure.message,
        "decline_reason": failure.reason,
        "pay": stripe_invoice.get("hosted_invoice_url"),
        "declines": after.declines,
        "next_retry": None if after.retry_at is None else format_timestamp(after.retry_at * 1000),
    }
    return Alert(
        key=f"payment-failed:{row.id}" + (f":{after.declines}" if after.declines > 1 else ""),
        kind=AlertKind.PAYMENT_FAILED,
        severity="warn" if after.declines == 1 or after.retry_at is None else "info",
        customer=row.name,
        title=f"A payment of {row.name} was declined, and {next_try}: {failure.message}",
        details=details,
        at=now,
    )


async def apply_stripe_customer(connection: AsyncConnection, stripe_customer: StripeObject, now: float) -> None:
    """Retry a customer's declined payments at once if its default payment method is not the declined one."""
    method = find_payment_method(stripe_customer)
    if method is None:
        return
    has_same = match_book_text(connection, table.c.payment_method, method)
    owned = invoices.join(billing_customers, billing_customers.c.customer == invoices.c.customer)
    statement = (
        sa.select(invoices.c.id)
        .select_from(owned)
        .join(table, table.c.invoice == invoices.c.id)
        .where(billing_customers.c.stripe_id == stripe_customer["id"], invoices.c.state == states.OPEN)
        .where(table.c.payment_method.is_(None) | ~has_same, table.c.state != PROCESSING)
    )
    for number in list(await connection.scalars(statement)):
        before = await _fetch_dunning(connection, number)
        after = advance(before, METHOD_CHANGED, int(now))
        values = {**after._asdict(), "payment_method": method}  # Further events of the customer change nothing.
        await connection.execute(sa.update(table).where(table.c.invoice == number).values(values))


async def is_declined(connection: AsyncConnection, customer: str, method: str) -> bool:
    """Return whether the payment of an open invoice of a customer, by id, was declined with this payment method."""
    own = invoices.join(table, table.c.invoice == invoices.c.id)
    is_open = (invoices.c.customer == customer) & (invoices.c.state == states.OPEN)
    by_method = match_book_text(connection, table.c.payment_method, method)
    by_method &= table.c.state.in_((RETRYING, EXHAUSTED))
    statement = sa.select(sa.literal(1)).select_from(own).where(is_open, by_method)
    return (await connection.execute(statement.limit(1))).first() is not None


async def _fetch_dunning(connection: AsyncConnection, number: str) -> Dunning | None:
    """Lock and return the dunning of an invoice, or None if it has none."""
    columns = [table.c[name] for name in Dunning._fields]
    row = (await connection.execute(sa.select(*columns).where(table.c.invoice == number).with_for_update())).first()
    return None if row is None else Dunning(DunningState(row.state), *row[1:])


# ---- customers with unpaid invoices


class DueCustomers(NamedTuple):
    """The customers to pause and to release."""

    unpaid_since: Mapping[str, int]
    """The Unix second since which a customer to pause has an unpaid invoice, by the customer's name."""
    paid: list[str]
    """The names of the customers to release."""


async def list_due_customers(
    connection: AsyncConnection, settings: CollectorSettings, now: float, *, among: Collection[str] | None = None
) -> DueCustomers:
    """Return the customers to pause and to release, only those in `among` if given.

    Reads all customers without a lock.
    """
    assert settings.billing is not None
    column = customers_table.c
    unpaid = (invoices.c.state == states.OPEN) & (invoices.c.total > 0)
    # A held invoice is sent long after the end of its freeze.
    sent_at = sa.case((invoices.c.issued_at > invoices.c.closes_at, invoices.c.issued_at), else_=invoices.c.closes_at)
    is_overdue = (sent_at <= int(now - settings.billing.payment_grace)) & (
        sa.func.coalesce(invoices.c.due_at, 0) <= int(now)
    )
    is_under_way = sa.exists().where(table.c.invoice == invoices.c.id, table.c.state == PROCESSING)
    late_invoices = sa.select(invoices.c.customer, sa.func.min(sent_at).label("since"))
    late_invoices = late_invoices.where(unpaid, is_overdue, ~is_under_way)
    oldest = late_invoices.group_by(invoices.c.customer).subquery()
    is_served = column.settings.not_like('%"paused":{%')  # A pause set by others remains.
    is_concerned = column.deleting_since.is_(None) & (sa.true() if among is None else column.name.in_(among))
    late = sa.select(column.name, oldest.c.since).join_from(oldest, customers_table, column.id == oldest.c.customer)
    paid = sa.select(column.name).where(
        is_concerned, IS_REFUSED, ~sa.exists().where(invoices.c.customer == column.id, unpaid)
    )
    rows = await connection.execute(late.where(is_concerned, is_served))
    released = await connection.execute(paid)
    return DueCustomers({row.name: row.since for row in rows}, list(released.scalars()))


async def pause_and_release(
    connection: AsyncConnection, settings: CollectorSettings, now: float, among: Collection[str]
) -> tuple[list[str], list[str]]:
    """Pause and release the due ones of these customers. Return the names of both."""
    due = await list_due_customers(connection, settings, now, among=among)
    await customers.lock_customers(connection, {*due.unpaid_since, *due.paid})
    paused, released = [], []
    for name, since in due.unpaid_since.items():
        settings_now = orjson.loads((await customers.get_row(connection, name)).settings)
        if "paused" in settings_now:
            continue  # Another transaction paused it meanwhile.
        if not await _set_pause(connection, name, {"why": WHY, "status": UNPAID}, settings):
            continue
        alert = Alert(
            key=f"billing-unpaid-{name}-{since}",
            kind=AlertKind.INVOICE_UNPAID,
            customer=name,
            title=f"{name} is paused until an invoice is paid",
            at=now,
        )
        await raise_once(connection, alert)
        paused.append(name)
    for name in due.paid:
        if await _set_pause(connection, name, None, settings):
            released.append(name)
    return paused, released


async def _set_pause(
    connection: AsyncConnection, name: str, paused: dict[str, object] | None, settings: CollectorSettings
) -> bool:
    """Pause or release a customer. Return False if that fails, so that the others are still processed."""
    try:
        change = UpdateCustomerRequest.model_validate({"paused": paused})
        await customers.update_customer(connection, CALLER, name, change, settings)
    except ChangeRejectedError as error:
        log.get_logger().error(
            "a customer could not be paused or released", customer=name, why=error.why, faults=error.faults
        )
        return False
    return True
