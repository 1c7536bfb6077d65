"""Money that remains in clearing because only one of the two books knows it: ours or Stripe's."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe_balance.entries import SubjectKind
from edgeproxy.collector.billing.stripe_balance.subjects import LOOKED_UP_MAX
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.schema import customers

CLEARING, CASH = "clearing", "cash"
MOVED = "balance_transaction"
"""The kind of transaction in Stripe's book."""
columns, entries = credit_transactions.c, credit_entries.c


class ClearedSubject(NamedTuple):
    """A purchase or an invoice in both books, in smallest units (for example cents). Refunds are negative."""

    kind: SubjectKind
    id: str
    """The payment intent of a purchase, or its grant if it has no payment; or our invoice id."""
    customer: str
    """The customer's name; empty if our book has none."""
    ours: int
    stripes: int
    currency: str


async def fetch_subjects(connection: AsyncConnection, span: Span) -> list[ClearedSubject]:
    """Return the subjects with bookings in this span of Unix seconds, with all their bookings ever."""
    in_span = columns.at >= span.start * 1000, columns.at < span.end * 1000
    booked = sa.exists().where(entries.seq == columns.seq, entries.account == CLEARING)
    rows = await connection.execute(sa.select(columns.original).where(*in_span, booked).distinct())
    touched = {original for (original,) in rows}
    payments = await _fetch_payments(connection, touched)
    amounts: dict[tuple[str, str], list[int]] = {}
    names: dict[str, str] = {}
    for page in _paginate(touched | payments.keys()):
        statement = (
            sa.select(columns.original, columns.kind, customers.c.name, columns.currency, entries.amount)
            .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
            .outerjoin(customers, customers.c.id == columns.customer)
            .where(columns.original.in_(page), entries.account == CLEARING)
        )
        for original, kind, name, currency, amount in await connection.execute(statement):
            key = payments.get(original, original)
            amounts.setdefault((key, currency), [0, 0])[kind == MOVED] += amount
            names[key] = name or names.get(key, "")
    ours = await _find_invoices(connection, names)
    return [
        ClearedSubject(
            *("invoice" if key in ours else "purchase", key, names[key]),
            *(booked // CENT, -moved // CENT, currency),
        )
        for (key, currency), (booked, moved) in sorted(amounts.items())
    ]


async def sum_cash(connection: AsyncConnection, span: Span) -> dict[str, int]:
    """Return the change of the balance by currency, in smallest units, from the balance transactions of this span.

    Only booked balance transactions that Stripe created in the span count.
    """
    statement = (
        sa.select(columns.currency, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind == MOVED, columns.slice >= span.start, columns.slice < span.end, entries.account == CASH)
        .group_by(columns.currency)
    )
    return {currency: amount // CENT for currency, amount in await connection.execute(statement)}


async def _fetch_payments(connection: AsyncConnection, originals: Collection[str]) -> dict[str, str]:
    """Return payment intents by grant, for grants with one of these ids or paid by one of these intents."""
    grants, payments = credit_grants.c, dict[str, str]()
    for page in _paginate(originals):
        is_meant = grants.id.in_(page) | grants.payment.in_(page)
        statement = sa.select(grants.id, grants.payment).where(is_meant, grants.payment.is_not(None))
        payments |= {row.id: row.payment for row in await connection.execute(statement)}
    # A movement that was booked before its purchase refers to the payment intent.
    return payments | {payment: payment for payment in payments.values()}


async def _find_invoices(connection: AsyncConnection, ids: Collection[str]) -> set[str]:
    """Return the ids among these that are our invoices."""
    known_ids = set[str]()
    for page in _paginate(ids):
        known_ids.update(await connection.scalars(sa.select(invoices.c.id).where(invoices.c.id.in_(page))))
    return known_ids


def _paginate(ids: Iterable[str]) -> Iterable[list[str]]:
    ordered = sorted(ids)
    return (ordered[at : at + LOOKED_UP_MAX] for at in range(0, len(ordered), LOOKED_UP_MAX))
