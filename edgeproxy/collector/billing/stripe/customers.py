"""Who a customer is at Stripe."""

import asyncio
import time
from typing import Any

import sqlalchemy as sa

from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database, insert_new

CUSTOMER = "edgeproxy_customer"
"""What says in the metadata of Stripe's customers who they are here."""
KEY_SECONDS = 23 * 3600
"""Seconds for which an Idempotency-Key is known at Stripe, at least."""
CLOCK_SECONDS = 3600
"""Seconds by which clocks may differ, and more."""
LOOKED_UP_MAX = 1000
"""Customers whom one statement asks for."""
OVERLAP_SECONDS = 10
"""Seconds of Stripe's within which customers are looked at again: they may be listed later than they were made."""


class Made:
    """The customers that were made at Stripe and are not known here, as far as they were looked at: each look goes on
    from the one before.
    """

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._lock = asyncio.Lock()
        self._found: dict[str, dict[str, Any]] = {}
        self._begin: int | None = None
        self._until = 0

    async def find(self, customer: str, since: int) -> dict[str, Any] | None:
        """The customer with this id of ours who was made at Stripe from a Unix second of ours on; None where there is
        none, or it is known here by now. Raises StripeFailure."""
        begin = since - CLOCK_SECONDS
        async with self._lock:
            if self._begin is None or begin < self._begin:
                self._begin = self._until = begin
            begin = max(self._begin, self._until - OVERLAP_SECONDS)
            for there in await self._stripe.every("v1.customers.list", created={"gte": begin}):
                self._until = max(self._until, there["created"])
                if (ours := (there.get("metadata") or {}).get(CUSTOMER)) is not None:
                    self._found[ours] = {"id": there["id"], "livemode": there["livemode"]}
            await self._drop_known()
            return self._found.get(customer)

    async def _drop_known(self) -> None:
        """Forget who is known here by now, as nearly all are: nobody looks for them."""
        ours, of = list(self._found), billing_customers.c.customer
        async with self._database.reading() as connection:
            for at in range(0, len(ours), LOOKED_UP_MAX):
                known = sa.select(of).where(of.in_(ours[at : at + LOOKED_UP_MAX]))
                for customer in (await connection.execute(known)).scalars():
                    del self._found[customer]


async def payer(
    database: Database,
    stripe: Stripe,
    customer: str,
    name: str,
    *,
    tries: int = 0,
    since: int = 0,
    before: Made | None = None,
) -> str:
    """The id of a customer at Stripe, who is made there if need be. Raises StripeFailure.

    `tries` tells apart attempts whose Idempotency-Key would only be answered the same again, `since` is the Unix second
    of the first of them; `before` is where a customer is looked for whom one of them has made.
    """
    found = await _known(database, customer)
    if found is not None:
        return found
    made = None
    # The Idempotency-Key finds whom a try has made whose answer is lost, but for a day only, and not where that was a
    # failure.
    if before is not None and (tries or time.time() - since >= KEY_SECONDS):
        made = await before.find(customer, since)
        if made is None and (found := await _known(database, customer)) is not None:
            return found  # Another one has noted it meanwhile.
    if made is None:
        key = f"{customer}_customer_{tries}"
        made = await stripe.call("v1.customers.create", key=key, name=name, metadata={CUSTOMER: customer})
    row = {"customer": customer, "stripe_id": made["id"], "livemode": int(made["livemode"])}
    async with database.writing() as connection:
        await connection.execute(insert_new(connection, billing_customers, "customer"), [row])
    return await _known(database, customer) or str(made["id"])


async def _known(database: Database, customer: str) -> str | None:
    of = billing_customers.c.customer == customer
    async with database.reading() as connection:
        found = (await connection.execute(sa.select(billing_customers.c.stripe_id).where(of))).scalar_one_or_none()
    return None if found is None else str(found)
