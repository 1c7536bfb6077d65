"""Credit purchases as their customer sees them, newest first, with Stripe's receipt; and the origin of remaining
credits."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.journal.journal import NO_SLICE
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.problems import billing_codes


class Purchase(NamedTuple):
    """A credit purchase. Amounts are millicredits."""

    id: str
    number: int
    payment: str | None
    """The payment intent."""
    paid: int
    tax: int
    returned: int
    at: int
    """Unix milliseconds."""


class GrantOrigin(NamedTuple):
    """The origin of a customer's credits."""

    kind: Literal["purchase", "gift", "moved"]
    """`purchase`, `gift`, or `moved` (from another residency)."""
    granted: int
    """The number of credits added, in millicredits."""
    at: int
    """Unix milliseconds."""
    returned: int
    """The part that is gone without usage, in millicredits: refunded, reserved for a refund, or taken back."""


RETURNING: Final = ("withdrawal", "refund", "refund_failed", "chargeback", "chargeback_won", "moved_out")
"""The kinds of transactions that take credits from a grant without usage, or restore them."""


async def fetch_origins(connection: AsyncConnection, customer: str) -> dict[str, GrantOrigin]:
    """Return the origin of a customer's remaining credits, by grant; the customer is given by id."""
    grants, entries = credit_grants.c, credit_entries.c
    of_grant = entries.seq == grants.number
    # The part of a gift that pays an overdraft is in no grant. Other moves may have created several grants at once.
    whole = sa.select(sa.func.sum(entries.amount)).where(of_grant, entries.amount > 0).scalar_subquery()
    own = sa.select(-sa.func.sum(entries.amount)).where(of_grant, entries.grant_id == grants.id).scalar_subquery()
    booked = credit_transactions.c.kind
    # Returned usage without a grant to return to becomes a gift.
    kind = sa.case((booked == "purchase", booked), (booked == "moved_in", "moved"), else_="gift")
    granted = sa.case((grants.paid > 0, grants.paid), (booked == "gift", whole), else_=own)
    statement = (
        sa.select(grants.id, kind, granted, credit_transactions.c.at)
        .join_from(credit_grants, credit_transactions, credit_transactions.c.seq == grants.number)
        .where(grants.customer == customer, grants.rest > 0)
    )
    rows = await connection.execute(statement)
    returned = await _fetch_returned(connection, customer)
    return {  # A sum may be a decimal.
        grant: GrantOrigin(kind, int(amount), at, returned.get(grant, 0)) for grant, kind, amount, at in rows
    }


async def _fetch_returned(connection: AsyncConnection, customer: str) -> dict[str, int]:
    """Return the millicredits of a customer, by id, that are gone without usage, by grant.

    A won dispute gives a purchase back what its loss had taken from the overdraft. Such a sum below zero counts as 0.
    """
    transactions, entries = credit_transactions.c, credit_entries.c
    statement = (
        sa.select(entries.grant_id, sa.func.sum(entries.amount))
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        # The slice is for the index: these kinds have none.
        .where(transactions.kind.in_(RETURNING), transactions.slice == NO_SLICE, transactions.customer == customer)
        .where(entries.account == "deferred")
        .group_by(entries.grant_id)
    )
    return {grant: max(0, int(amount)) for grant, amount in await connection.execute(statement)}


async def list_purchases(connection: AsyncConnection, customer: str, before: int | None, limit: int) -> list[Purchase]:
    """Return at most `limit` purchases of a customer, by id, before the one with this number, newest first."""
    grants = credit_grants.c
    statement = (
        sa.select(grants.id, grants.number, grants.payment, grants.paid, grants.tax, grants.returned)
        .add_columns(credit_transactions.c.at)
        .join_from(credit_grants, credit_transactions, credit_transactions.c.seq == grants.number)
        .where(grants.customer == customer, grants.paid > 0)
        .order_by(grants.number.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(grants.number < before)
    return [Purchase(*row) for row in await connection.execute(statement)]


async def get_payment_intent(connection: AsyncConnection, purchase: str) -> str | None:
    """Return the payment intent of a purchase, or None if it has none. Raises ChangeRejectedError."""
    statement = sa.select(credit_grants.c.payment).where(credit_grants.c.id == purchase, credit_grants.c.paid > 0)
    row = (await connection.execute(statement)).one_or_none() if can_be(purchase) else None
    if row is None:
        raise ChangeRejectedError(billing_codes.PURCHASE_NOT_FOUND, "there is no such purchase")
    payment: str | None = row.payment
    return payment


async def find_owner(connection: AsyncConnection, purchase: str) -> str | None:
    """Return the name of the customer who bought this grant, or None."""
    if not can_be(purchase):
        return None
    joined = credit_grants.join(customers, customers.c.id == credit_grants.c.customer)
    statement = sa.select(customers.c.name).select_from(joined).where(credit_grants.c.id == purchase)
    return await connection.scalar(statement)


def can_be(purchase: str) -> bool:
    """Return whether a purchase can have this id. Some databases reject a NUL even in a query."""
    return purchase.isascii() and purchase.isprintable()


async def fetch_receipt_url(stripe: Stripe, intent: str) -> str | None:
    """Return the URL of the receipt of a payment, or None. Raises StripeCallError."""
    payment = await stripe.call("v1.payment_intents.retrieve", intent, expand=["latest_charge"])
    charge = payment.get("latest_charge")
    url: str | None = charge.get("receipt_url") if isinstance(charge, Mapping) else None
    return url
