"""Who a customer is at Stripe."""

import time
from typing import Any

import sqlalchemy as sa

from edgeproxy.billing.stripe import Stripe
from edgeproxy.database.billing_tables import billing_customers
from edgeproxy.database.database import Database, insert_new

CUSTOMER = "edgeproxy_customer"
"""What says in the metadata of Stripe's customers who they are here."""
KEY_SECONDS = 23 * 3600
"""Seconds for which an Idempotency-Key is known at Stripe, at least."""
CLOCK_SECONDS = 3600
"""Seconds by which clocks may differ, and more."""


async def payer(
    database: Database, stripe: Stripe, customer: str, name: str, tries: int = 0, since: int | None = None
) -> str:
    """The id of a customer at Stripe, who is made there if need be. Raises StripeFailure.

    `tries` tells apart attempts whose Idempotency-Key would only be answered the same again, `since` is the Unix second
    of the first of them, if that is known.
    """
    found = await _known(database, customer)
    if found is not None:
        return found
    made = await _made_before(stripe, customer, tries, since) or await stripe.call(
        "v1.customers.create", key=f"{customer}_customer_{tries}", name=name, metadata={CUSTOMER: customer}
    )
    row = {"customer": customer, "stripe_id": made["id"], "livemode": int(made["livemode"])}
    async with database.writing() as connection:
        await connection.execute(insert_new(connection, billing_customers, "customer"), [row])
    return await _known(database, customer) or str(made["id"])


async def _known(database: Database, customer: str) -> str | None:
    of = billing_customers.c.customer == customer
    async with database.reading() as connection:
        found = (await connection.execute(sa.select(billing_customers.c.stripe_id).where(of))).scalar_one_or_none()
    return None if found is None else str(found)


async def _made_before(stripe: Stripe, customer: str, tries: int, since: int | None) -> dict[str, Any] | None:
    """The customer that a try has made whose answer nobody has. The Idempotency-Key finds it, but for a day only, and
    not where the answer was a failure."""
    if since is None or (not tries and time.time() - since < KEY_SECONDS):
        return None
    for there in await stripe.every("v1.customers.list", created={"gte": since - CLOCK_SECONDS}):
        if (there.get("metadata") or {}).get(CUSTOMER) == customer:
            return there
    return None
