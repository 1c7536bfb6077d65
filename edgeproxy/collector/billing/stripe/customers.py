"""Customers at Stripe: one for each of ours."""

import asyncio
import time

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit, contacts
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.shown_names import fetch_names, find_shown_name
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject, try_keys
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import customers

CUSTOMER = "edgeproxy_customer"
"""The metadata key of a Stripe customer for our id."""
EMAIL = "edgeproxy_email"
"""The metadata key for the e-mail address that we set and that follows the contacts."""
NAME = "edgeproxy_name"
"""The metadata key for the name that we set and that follows the name of our customer."""
FOLLOWED = {"name": NAME, "email": EMAIL}
"""The fields of a Stripe customer that follow ours, by the metadata keys for what we sent."""
KEY_SECONDS = 23 * 3600
"""Stripe remembers an Idempotency-Key for at least this many seconds."""
CLOCK_SECONDS = 3600
"""An upper bound in seconds for the difference between clocks."""
LOOKED_UP_MAX = 1000
"""The most customers that one statement looks up."""
PAYERS_MAX = 50
"""The most customers whose names or addresses one round sends to Stripe."""
CALLER = Caller("billing")
REFUSED = "Stripe refuses a name or an address for invoices"
OVERLAP_SECONDS = 10
"""Each list repeats this many seconds of Stripe's clock. A customer may be listed a while after its creation."""


def find_payment_method(stripe_customer: StripeObject) -> str | None:
    """Return the id of the payment method for a customer's invoices, or None."""
    settings = stripe_customer.get("invoice_settings") or {}
    method = settings.get("default_payment_method") or stripe_customer.get("default_source")
    return method["id"] if isinstance(method, dict) else method


async def find_stripe_id(connection: AsyncConnection, customer: str) -> str | None:
    """Return the Stripe id of a customer, by our id, or None if Stripe does not have it yet."""
    own = (billing_customers.c.customer == customer) & billing_customers.c.deleted_at.is_(None)
    statement = sa.select(billing_customers.c.stripe_id).where(own)
    stripe_id: str | None = await connection.scalar(statement)
    return stripe_id


async def record_deleted(connection: AsyncConnection, stripe_id: str) -> None:
    """Record that a person deleted a customer at Stripe, so that its next charge creates it again.

    `customer_deletion` deletes an erased customer.
    """
    is_there = customers.c.erased_at.is_(None)
    owner = sa.select(customers.c.name).join(billing_customers, billing_customers.c.customer == customers.c.id)
    own = (billing_customers.c.stripe_id == stripe_id) & billing_customers.c.deleted_at.is_(None)
    name = await connection.scalar(owner.where(own, is_there).with_for_update())
    if name is None:
        return
    await connection.execute(sa.update(billing_customers).where(own).values(deleted_at=round(time.time() * 1000)))
    entry = AuditEntry("customer.deleted_at_stripe", name, None, {"stripe_id": stripe_id})
    await audit.append_entry(connection, CALLER, entry)
    log.get_logger().warning("a customer was deleted at Stripe by hand", customer=name, stripe_id=stripe_id)


async def find_contact_email(connection: AsyncConnection, customer: str) -> str | None:
    """Return a customer's alert address, by our id, or else its first contact, or None if it has neither."""
    email = await contacts.find_alert_address(connection, customer)
    return email or next(iter(await contacts.list_contacts(connection, customer)), None)


async def find_invoice_name(connection: AsyncConnection, customer: str) -> str | None:
    """Return the name of a customer for invoices, by our id, or None if the customer was erased here."""
    own = (customers.c.id == customer) & customers.c.erased_at.is_(None)
    name = await connection.scalar(sa.select(customers.c.name).where(own))
    return None if name is None else (await fetch_names(connection, name)).shown


class StripeCustomers:
    """Customers at Stripe, by our id. It also finds a customer that an earlier try created but did not record."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._lock = asyncio.Lock()
        self._by_customer: dict[str, StripeObject] = {}
        self._begin: int | None = None
        self._until = 0

    async def get_or_create(self, customer: str, name: str, *, tries: int = 0, since: float | None = None) -> str:
        """Return the Stripe id of a customer by our id, and create it there if necessary. Raises StripeCallError.

        `name` is its name in the ledger. `tries` is the number of Idempotency-Keys that would only repeat a failure.
        `since` is the Unix second of the first try; None means that this is the first.
        """
        customer_id = await self._find_recorded(customer)
        if customer_id is not None:
            return customer_id
        stripe_customer = None
        # The Idempotency-Key finds the customer of a try with a lost answer, but only for a day, and not after a
        # failure.
        if since is not None and (tries or time.time() - since >= KEY_SECONDS):
            stripe_customer = await self.find_customer(customer, int(since))
            if stripe_customer is None and (customer_id := await self._find_recorded(customer)) is not None:
                return customer_id  # Another task has recorded it meanwhile.
        if stripe_customer is None:
            shown = await find_shown_name(self._database, name)
            metadata = {CUSTOMER: customer, NAME: shown}
            deleted_id = await self._find_deleted(customer)
            key = f"{customer}_customer_{tries}" + (f"_after_{deleted_id}" if deleted_id else "")
            stripe_customer = await self._stripe.call("v1.customers.create", key=key, name=shown, metadata=metadata)
        row = {"customer": customer, "stripe_id": stripe_customer["id"], "livemode": int(stripe_customer["livemode"])}
        async with self._database.writing() as connection:
            # The name may have changed since it was sent, here or by an earlier try.
            if await find_invoice_name(connection, customer) not in (None, stripe_customer.get("name")):
                row["email_changed_at"] = now_ms()
            own = (billing_customers.c.customer == customer) & billing_customers.c.deleted_at.is_not(None)
            async with across_customers(connection):  # A buying customer may record an id, but not change one.
                await connection.execute(sa.update(billing_customers).where(own).values(**row, deleted_at=None))
            await connection.execute(build_insert_new(connection, billing_customers, "customer"), [row])
        return await self._find_recorded(customer) or str(stripe_customer["id"])

    async def get_or_create_now(self, customer: str, name: str) -> str:
        """Like `get_or_create`, for a caller that waits: failed keys are retried at once. Raises StripeCallError."""
        since = time.time() - KEY_SECONDS
        return await try_keys(
            lambda tries: self.get_or_create(customer, name, tries=tries, since=since if tries else None)
        )

    async def fetch_payer(self, customer: str, stripe_id: str) -> StripeObject:
        """Return Stripe's customer, by our id, with the current name and e-mail address for invoices.

        A name or address that Stripe got elsewhere, such as from a checkout, stays. One that Stripe refuses is logged,
        as it must hinder no payment. Raises StripeCallError.
        """
        stripe_customer = await self._stripe.call("v1.customers.retrieve", stripe_id)
        async with self._database.reading() as connection:
            values = {
                "name": await find_invoice_name(connection, customer),
                "email": await find_contact_email(connection, customer),
            }
        # Each field has a call of its own, so that a refused one does not hinder the other.
        for field, value in values.items():
            stored, key = stripe_customer.get(field), FOLLOWED[field]
            # The metadata has the value that we sent. Any other value is from elsewhere.
            is_ours = not stored or stored == (stripe_customer.get("metadata") or {}).get(key)
            if not is_ours or value in (None, stored):
                continue
            changes: StripeObject = {field: value, "metadata": {key: value}}
            try:
                stripe_customer = await self._stripe.call("v1.customers.update", stripe_id, **changes)
            except StripeCallError as error:
                if error.outcome is not CallOutcome.REFUSED:
                    raise
                log.get_logger().warning(REFUSED, customer=customer, field=field, why=error.code)
        return stripe_customer

    async def update_payers(self) -> bool:
        """Send Stripe the names and addresses that have changed here, at most PAYERS_MAX. Return whether any had.

        A value that Stripe refuses is tried again with the next invoice. Raises StripeCallError if Stripe is
        unavailable.
        """
        changed = billing_customers.c.email_changed_at
        is_known = (billing_customers.c.livemode == int(self._stripe.is_live)) & billing_customers.c.deleted_at.is_(
            None
        )
        statement = sa.select(billing_customers.c.customer, billing_customers.c.stripe_id, changed)
        statement = statement.where(changed.is_not(None), is_known).order_by(changed).limit(PAYERS_MAX)
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        for customer, stripe_id, changed_at in rows:
            try:
                await self.fetch_payer(customer, stripe_id)
            except StripeCallError as error:
                if error.outcome is not CallOutcome.REFUSED:
                    raise
                log.get_logger().warning(REFUSED, customer=customer, why=error.code)
            # A customer that changed again during the call stays due.
            is_done = (billing_customers.c.customer == customer) & (changed == changed_at)
            async with self._database.writing() as connection:
                await connection.execute(sa.update(billing_customers).where(is_done).values(email_changed_at=None))
        return bool(rows)

    async def _find_recorded(self, customer: str) -> str | None:
        async with self._database.reading() as connection:
            return await find_stripe_id(connection, customer)

    async def _find_deleted(self, customer: str) -> str | None:
        """Return the id of a customer deleted at Stripe. The Idempotency-Key that created it would still return it."""
        own = (billing_customers.c.customer == customer) & billing_customers.c.deleted_at.is_not(None)
        async with self._database.reading() as connection:
            rows = await connection.execute(sa.select(billing_customers.c.stripe_id).where(own))
            stripe_id: str | None = rows.scalar_one_or_none()
            return stripe_id

    async def find_customer(self, customer: str, since: int) -> StripeObject | None:
        """Return the Stripe customer with our id that was created since a Unix second of our clock, or None.

        It is None also if the customer is recorded here by now. Raises StripeCallError.
        """
        begin = since - CLOCK_SECONDS
        async with self._lock:
            if self._begin is None or begin < self._begin:
                self._begin = self._until = begin
            # One list serves all customers that were created since: each call reads only the part that is new.
            begin = max(self._begin, self._until - OVERLAP_SECONDS)
            for stripe_customer in await self._stripe.list_all("v1.customers.list", created={"gte": begin}):
                self._until = max(self._until, stripe_customer["created"])
                if (customer_id := (stripe_customer.get("metadata") or {}).get(CUSTOMER)) is not None:
                    self._by_customer[customer_id] = {
                        "id": stripe_customer["id"],
                        "livemode": stripe_customer["livemode"],
                        "name": stripe_customer.get("name"),
                    }
            await self._drop_stored()
            return self._by_customer.get(customer)

    async def _drop_stored(self) -> None:
        """Forget customers that are recorded here by now, as almost all are."""
        customer_ids, column = list(self._by_customer), billing_customers.c.customer
        async with self._database.reading() as connection:
            for at in range(0, len(customer_ids), LOOKED_UP_MAX):
                some = column.in_(customer_ids[at : at + LOOKED_UP_MAX])
                statement = sa.select(column).where(some, billing_customers.c.deleted_at.is_(None))
                for customer in await connection.scalars(statement):
                    del self._by_customer[customer]
