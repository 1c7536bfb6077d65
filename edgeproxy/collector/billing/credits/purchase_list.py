"""What customers have bought of credits, the last first, and where the payment service has the receipt."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import Refused
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.credit_tables import credit_grants, credit_transactions
from edgeproxy.collector.database.schema import customers


async def listing(connection: AsyncConnection, customer: str, before: int | None, limit: int) -> Sequence[Any]:
    """Return at most `limit` purchases of a customer, by id, before the one of this number.

    Each has `id`, `number`, `at` (Unix milliseconds), `payment`, and in millicredits `paid`, `tax` and `returned`.
    """
    grants = credit_grants.c
    wanted = (
        sa.select(grants.id, grants.number, grants.payment, grants.paid, grants.tax, grants.returned)
        .add_columns(credit_transactions.c.at)
        .join_from(credit_grants, credit_transactions, credit_transactions.c.seq == grants.number)
        .where(grants.customer == customer, grants.paid > 0)
        .order_by(grants.number.desc())
        .limit(limit)
    )
    if before is not None:
        wanted = wanted.where(grants.number < before)
    return (await connection.execute(wanted)).all()


async def payment_of(connection: AsyncConnection, purchase: str) -> str | None:
    """Return the payment intent of a purchase; None where it has none. Raises Refused."""
    wanted = sa.select(credit_grants.c.payment).where(credit_grants.c.id == purchase, credit_grants.c.paid > 0)
    row = (await connection.execute(wanted)).one_or_none() if can_be(purchase) else None
    if row is None:
        raise Refused(404, "there is no such purchase")
    payment: str | None = row.payment
    return payment


async def owner_of(connection: AsyncConnection, purchase: str) -> str | None:
    """Return the name of the customer who bought this; None where nobody did."""
    if not can_be(purchase):
        return None
    joined = credit_grants.join(customers, customers.c.id == credit_grants.c.customer)
    wanted = sa.select(customers.c.name).select_from(joined).where(credit_grants.c.id == purchase)
    return (await connection.execute(wanted)).scalar_one_or_none()


def can_be(purchase: str) -> bool:
    """Whether a purchase can have this id: not every database takes a NUL, even to find nothing."""
    return purchase.isascii() and purchase.isprintable()


async def receipt(stripe: Stripe, intent: str) -> str | None:
    """Return where the receipt of a payment is; None where there is none. Raises StripeFailure."""
    found = await stripe.call("v1.payment_intents.retrieve", intent, expand=["latest_charge"])
    charge = found.get("latest_charge")
    url: str | None = charge.get("receipt_url") if isinstance(charge, Mapping) else None
    return url
