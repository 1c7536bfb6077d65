"""Credit purchases as their customer sees them, newest first, with Stripe's receipt; and the origin of remaining
credits."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
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
    return {grant: GrantOrigin(kind, int(amount), at) for grant, kind, amount, at in rows}  # A sum may be a decimal.


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
    return (await connection.execute(statement)).scalar_one_or_none()


def can_be(purchase: str) -> bool:
    """Return whether a purchase can have this id. Some databases reject a NUL even in a query."""
    return purchase.isascii() and purchase.isprintable()


async def fetch_receipt_url(stripe: Stripe, intent: str) -> str | None:
    """Return the URL of the receipt of a payment, or None. Raises StripeCallError."""
    payment = await stripe.call("v1.payment_intents.retrieve", intent, expand=["latest_charge"])
    charge = payment.get("latest_charge")
    url: str | None = charge.get("receipt_url") if isinstance(charge, Mapping) else None
    return url
