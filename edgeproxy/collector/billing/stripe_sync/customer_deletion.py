"""The deletion of erased customers at Stripe, once their invoices are settled and no payment is disputed.

Stripe deletes the name, address and payment methods of a deleted customer, and retains its invoices, as the law
requires. A deletion cannot be undone, and ends Stripe's collection of payments. So each deletion waits for the
customer's last invoice, here and at Stripe, and for the end of disputes. After a crash, Stripe is asked again and
reports what it did.
"""

import time
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.billing.invoices.invoices import PAID, UNCOLLECTIBLE, VOID, WAIVED
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.database.billing_tables import CANCELED, billing_customers, invoices, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers

COLLECTOR = Caller("collector")
DELETED_MAX = 50
"""The most customers in one round."""
SETTLED = (PAID, VOID, WAIVED, UNCOLLECTIBLE)
"""States of invoices that are final."""
UNSETTLED_AT_STRIPE = ("draft", "open")
CLOSED_DISPUTES = frozenset({"lost", "prevented", "warning_closed", "won"})
"""States of disputes that need no answer."""
PLAN, INVOICE = "a plan has not ended", "an invoice is not settled"
INVOICE_AT_STRIPE, DISPUTE = "an invoice at Stripe is not settled", "a payment is disputed"
CALL_FAILED = "a call to Stripe failed, and is made again"
NOT_THERE = "Stripe has no such customer: is the key one of another account?"


class ErasedAtStripe(NamedTuple):
    """An erased customer that Stripe may still have."""

    customer: str
    name: str
    stripe_id: str
    waits_for: str | None
    """The reason why it was not deleted at the last check; None if it was never checked."""


async def list_waiting(connection: AsyncConnection, *, is_live: bool | None = None) -> list[ErasedAtStripe]:
    """Return the erased customers that Stripe may still have, longest unchecked first.

    `is_live` selects live mode or test mode.
    """
    columns = billing_customers.c
    statement = (
        sa.select(columns.customer, customers.c.name, columns.stripe_id, columns.deletion_waits_for)
        .join_from(billing_customers, customers, customers.c.id == columns.customer)
        .where(customers.c.erased_at.is_not(None), columns.deleted_at.is_(None))
        .order_by(sa.func.coalesce(columns.deletion_tried_at, 0), columns.customer)
    )
    if is_live is not None:
        statement = statement.where(columns.livemode == int(is_live))
    return [ErasedAtStripe(*row) for row in await connection.execute(statement)]


async def delete_erased(database: Database, stripe: Stripe) -> None:
    """Delete erased customers at Stripe that nothing blocks, at most DELETED_MAX. Raises StripeCallError.

    A customer with a failed call is recorded like a waiting one, so that the next round begins with the others.
    """
    async with database.reading() as connection:
        waiting = (await list_waiting(connection, is_live=stripe.is_live))[:DELETED_MAX]
    for one in waiting:
        async with database.reading() as connection:
            # Our books first, because they cost no call to Stripe.
            reason = await _find_reason(connection, one.customer)
        try:
            reason = reason or await _delete(stripe, one.stripe_id)
        except StripeCallError:
            # Recorded before the error goes on, or this customer would be the first of each round.
            await _record(database, one, CALL_FAILED)
            raise
        await _record(database, one, reason)


async def _find_reason(connection: AsyncConnection, customer: str) -> str | None:
    """Return the reason, by our books, why a customer must still be at Stripe, or None."""
    for table, ended, reason in ((subscriptions, (CANCELED,), PLAN), (invoices, SETTLED, INVOICE)):
        is_unsettled = (table.c.customer == customer) & table.c.state.not_in(ended)
        if (await connection.execute(sa.select(table.c.id).where(is_unsettled).limit(1))).first() is not None:
            return reason
    return None


async def _delete(stripe: Stripe, stripe_id: str) -> str | None:
    """Delete a customer at Stripe. Return the reason if it cannot be deleted, or None. Raises StripeCallError.

    Stripe reports a customer that is already deleted as such. To another account the customer is unknown.
    """
    customer = await stripe.find("v1.customers.retrieve", stripe_id)
    if customer is None:
        return NOT_THERE
    # For example, an earlier round deleted it, and its answer was lost.
    if customer.get("deleted"):
        return None
    for status in UNSETTLED_AT_STRIPE:
        if (await stripe.call("v1.invoices.list", customer=stripe_id, status=status, limit=1))["data"]:
            return INVOICE_AT_STRIPE
    for charge in await stripe.list_all("v1.charges.list", customer=stripe_id):
        # A dispute that is open may need an answer, and the deletion takes the customer's name and address away.
        if charge.get("disputed"):
            disputes = await stripe.list_all("v1.disputes.list", charge=charge["id"])
            if any(dispute["status"] not in CLOSED_DISPUTES for dispute in disputes):
                return DISPUTE
    await stripe.call("v1.customers.delete", stripe_id)
    return None


async def _record(database: Database, one: ErasedAtStripe, reason: str | None) -> None:
    """Record that a customer is deleted at Stripe, or the reason why it is not."""
    now = round(time.time() * 1000)
    values = {"deletion_waits_for": reason, "deletion_tried_at": now, "deleted_at": now if reason is None else None}
    own = (billing_customers.c.customer == one.customer) & billing_customers.c.deleted_at.is_(None)
    async with database.writing() as connection:
        updated = (await connection.execute(sa.update(billing_customers).where(own).values(**values))).rowcount
        if updated and reason is None:
            entry = AuditEntry("customer.erase_at_stripe", one.name, None, {"stripe_id": one.stripe_id})
            await audit.append_entry(connection, COLLECTOR, entry)
    if reason is None or reason != one.waits_for:
        text = "an erased customer is deleted at Stripe" if reason is None else "an erased customer stays at Stripe"
        log.get_logger().info(text, customer=one.customer, why=reason)
