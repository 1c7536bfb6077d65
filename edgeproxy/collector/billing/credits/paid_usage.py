"""The payments behind usage: the bookings of a month's usage, by the grant that each part was taken from."""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions

KINDS = ("consumption", "usage_refund", "usage_moved")
SPENT = ("deferred", "overdraft")
"""The accounts for customers' credits and for their debts."""


class PaidUsage(NamedTuple):
    """A part of an hour's usage and its payment.

    Amounts are millicredits, negative if usage was refunded, or another grant pays for it since.
    """

    seq: int
    """The number of its booking in the journal."""
    at: int
    """The Unix millisecond of the booking."""
    slice: int
    """The Unix second at the start of the usage's hour; below 0 for usage that an operator reversed."""
    consumption: str
    """The id of the consumption, which a reversal names."""
    purchase: str
    """The id of the grant (a purchase or a gift), or empty for an overdraft."""
    payment_intent: str | None
    """Stripe's payment intent of the purchase; None for gifts and overdrafts."""
    amount: int


async def list_paid_usage(
    connection: AsyncConnection,
    customer: str,
    month: CalendarMonth,
    *,
    purchase: str | None = None,
    after: int = 0,
    limit: int,
) -> list[PaidUsage]:
    """Return at most `limit` usage bookings of a customer, by id, after the one with this number, in order.

    A booking has a row for each grant that it was taken from; `purchase` selects one grant. All rows of a booking are
    returned, so there may be more rows than `limit`.
    """
    transactions, entries, grants = credit_transactions.c, credit_entries.c, credit_grants.c
    within = [
        transactions.customer == customer,
        transactions.at >= month.begin,
        transactions.at < month.end,
        transactions.kind.in_(KINDS),
        transactions.seq > after,
    ]
    spent = [entries.account.in_(SPENT)] + ([entries.grant_id == purchase] if purchase is not None else [])
    page = (
        sa.select(transactions.seq)
        .where(*within, sa.exists().where(entries.seq == transactions.seq, *spent))
        .order_by(transactions.seq)
        .limit(limit)
    )
    consumption = sa.case((transactions.kind == KINDS[0], transactions.source), else_=transactions.original)
    statement = (
        sa.select(transactions.seq, transactions.at, transactions.slice, consumption, entries.grant_id)
        .add_columns(grants.payment, entries.amount)
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        .outerjoin(credit_grants, grants.id == entries.grant_id)
        .where(transactions.seq.in_(page), *spent)
        .order_by(transactions.seq, entries.position)
    )
    return [PaidUsage(*row) for row in await connection.execute(statement)]
