"""The rows of automatic top-up, one for each customer that ever turned it on.

Its `due_at` changes with each step, so a step that was decided from a row applies only while the row has that time.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.balances import NAMES_MAX, CreditUsage
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.top_up_decision import (
    OFF,
    ON,
    TopUp,
    add_paid,
    begin_purchase,
    end_declined,
    end_dropped,
    end_paid,
)
from edgeproxy.collector.billing.invoices.declines import PaymentFailure
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.database.credit_tables import credit_top_ups
from edgeproxy.collector.database.database import build_insert
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.config.collector.currency_units import format_with_code

PURCHASE = "topup_"
"""The beginning of an automatic purchase's id, also of its grant. Ids of other purchases are Stripe's."""
columns = credit_top_ups.c
IS_FREE = sa.and_(columns.state == ON, columns.purchase.is_(None), columns.due_at.is_(None))
"""The condition that no purchase is pending and no look at the balance is ahead."""


class Terms(NamedTuple):
    """The amounts that a customer chooses, in millicredits."""

    below: int
    amount: int
    month_max: int


async def find_top_up(connection: AsyncConnection, customer: str, *, lock: bool = False) -> TopUp | None:
    """Return the automatic top-up of a customer, by id, or None if it was never turned on."""
    statement = sa.select(credit_top_ups).where(columns.customer == customer)
    row = (await connection.execute(lock_rows(statement) if lock else statement)).one_or_none()
    return None if row is None else TopUp(**row._mapping)


async def turn_on(connection: AsyncConnection, caller: Caller, customer: CustomerRow, terms: Terms, now: int) -> TopUp:
    """Turn automatic top-up on, or change its amounts, at this Unix millisecond. A pending purchase goes on.

    The limit of the month still counts what was bought in it before.
    """
    before = await find_top_up(connection, customer.id, lock=True)
    # Due at once, because the balance may be below the new amount already.
    values: dict[str, object] = {"state": ON, **terms._asdict(), "declines": 0, "due_at": now}
    new = {"customer": customer.id, "month": 0, "spent": 0, "purchase_amount": 0, "begun_at": 0, **values}
    upsert = build_insert(connection, credit_top_ups).values(new)
    # The month, its sum and a pending purchase stay. So turning it off and on again does not renew the limit of the
    # month.
    await connection.execute(upsert.on_conflict_do_update(index_elements=["customer"], set_=values))
    await _record_audit(connection, caller, customer.id, before, {"state": ON, **terms._asdict()})
    after = await find_top_up(connection, customer.id)
    assert after is not None
    return after


async def turn_off(connection: AsyncConnection, caller: Caller, customer: str, now: int) -> TopUp | None:
    """Turn automatic top-up of a customer, by id, off.

    A purchase that was not sent to Stripe yet is given up; a sent one goes on.
    """
    before = await find_top_up(connection, customer, lock=True)
    if before is None or before.state == OFF:
        return before
    # Due once more, so that the job gives up a purchase that was not sent.
    after = before._replace(state=OFF, declines=0, due_at=now)
    await _write(connection, after)
    await _record_audit(connection, caller, customer, before, {"state": OFF})
    return after


async def _record_audit(
    connection: AsyncConnection,
    caller: Caller,
    customer: str,
    before: TopUp | None,
    after: Mapping[str, object],
) -> None:
    was = None if before is None else {name: getattr(before, name) for name in ("state", *Terms._fields)}
    entry = AuditEntry("credits.top_up", customer, was, after, customer)
    await audit.append_entry(connection, caller, entry)


async def find_low(connection: AsyncConnection, usages: Mapping[str, CreditUsage]) -> list[str]:
    """Return the ids of the customers, of these by name, who have less left than they chose and no step ahead."""
    names, low = sorted(usages), []
    for at in range(0, len(names), NAMES_MAX):
        statement = (
            sa.select(customers.c.name, columns.customer, columns.below)
            .join_from(credit_top_ups, customers, customers.c.id == columns.customer)
            .where(customers.c.name.in_(names[at : at + NAMES_MAX]), IS_FREE)
        )
        rows = await connection.execute(statement)
        low += [row.customer for row in rows if usages[row.name].left < row.below]
    return low


async def mark_due(connection: AsyncConnection, customer_ids: Collection[str], now: int) -> None:
    """Have the balances of these customers looked at."""
    # Always in this order, so that two collectors do not wait for each other's rows.
    for customer in sorted(customer_ids):
        own = (columns.customer == customer) & IS_FREE
        await connection.execute(sa.update(credit_top_ups).where(own).values(due_at=now))


async def list_due(connection: AsyncConnection, now: int, limit: int) -> list[TopUp]:
    """Return at most `limit` rows that are due at this Unix millisecond, longest due first."""
    statement = sa.select(credit_top_ups).where(columns.due_at <= now).order_by(columns.due_at).limit(limit)
    return [TopUp(**row._mapping) for row in await connection.execute(statement)]


async def set_due(connection: AsyncConnection, top_up: TopUp, due_at: int | None) -> None:
    """Set the time of the next step, unless the row has changed meanwhile."""
    is_same = (columns.customer == top_up.customer) & (columns.due_at == top_up.due_at)
    await connection.execute(sa.update(credit_top_ups).where(is_same).values(due_at=due_at))


async def put_off(connection: AsyncConnection, customer: str, now: int, until: int) -> None:
    """Put the next step of a customer, by id, off if it is due at the Unix millisecond `now`."""
    is_due = (columns.customer == customer) & (columns.due_at <= now)
    await connection.execute(sa.update(credit_top_ups).where(is_due).values(due_at=until))


async def begin(connection: AsyncConnection, top_up: TopUp, purchase: str, now: int) -> TopUp | None:
    """Record that a purchase begins. Return its row, or None if the row has changed meanwhile."""
    current = await find_top_up(connection, top_up.customer, lock=True)
    if current != top_up:
        return None
    after = begin_purchase(top_up, purchase, now)
    await _write(connection, after)
    return after


async def book_paid(
    connection: AsyncConnection, customer: str, purchase: str, intent: str, amount: int, now: int
) -> None:
    """Book the paid purchase of a customer, by id, once. `amount` is in the smallest unit of its currency."""
    booked = await credits.book_purchase(connection, customer, Payment(purchase, intent, amount * CENT))
    top_up = await find_top_up(connection, customer, lock=True)
    if top_up is not None and top_up.purchase == purchase:
        await _write(connection, end_paid(top_up, now))
    # The purchase is no longer pending here. For example, it was declined, which took its amount out of the sum of the
    # month. With `booked` no earlier report of the payment was counted.
    elif top_up is not None and booked is not None:
        await _write(connection, add_paid(top_up, amount * CENT, now))


async def drop(connection: AsyncConnection, top_up: TopUp, now: int) -> None:
    """Give up a pending purchase that was not sent to Stripe."""
    current = await _find_pending(connection, top_up.customer, str(top_up.purchase))
    if current is not None:
        await _write(connection, end_dropped(current, now))


async def record_declined(
    connection: AsyncConnection, customer: CustomerRow, top_up: TopUp, failure: PaymentFailure, now: int, currency: str
) -> None:
    """Record that the payment of a pending purchase was declined, and notify the customer."""
    current = await _find_pending(connection, customer.id, str(top_up.purchase))
    if current is None:
        return
    after = end_declined(current, failure.reason, now)
    retry_at = after.due_at if after.state == ON else None
    amount = format_with_code(top_up.purchase_amount // CENT, currency)
    details = {
        "purchase": top_up.purchase,
        "amount": amount,
        "credits": top_up.purchase_amount,
        "why": failure.message,
        "decline_reason": failure.reason,
        "declines": after.declines,
        "next_retry": None if retry_at is None else format_timestamp(retry_at),
    }
    next_try = "automatic top-up is off" if retry_at is None else "it is tried again"
    alert = Alert(
        key=f"payment-failed:{top_up.purchase}",
        kind=AlertKind.PAYMENT_FAILED,
        severity="warn",
        customer=customer.name,
        title=f"A payment of {customer.name} for credits was declined, and {next_try}: {failure.message}",
        details=details,
        at=now / 1000,
    )
    await raise_once(connection, alert)
    await _write(connection, after)


async def _find_pending(connection: AsyncConnection, customer: str, purchase: str) -> TopUp | None:
    """Return the locked row of a customer if this purchase is pending."""
    top_up = await find_top_up(connection, customer, lock=True)
    return top_up if top_up is not None and top_up.purchase == purchase else None


async def _write(connection: AsyncConnection, top_up: TopUp) -> None:
    own = columns.customer == top_up.customer
    await connection.execute(sa.update(credit_top_ups).where(own).values(top_up._asdict()))
