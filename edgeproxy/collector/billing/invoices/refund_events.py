"""Customers' webhook events about refunds at Stripe, of invoices and of credit purchases."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.invoices.disputes import find_subject
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event

EVENT_TYPES: Final[Mapping[str, EventType]] = {
    "succeeded": EventType.REFUND_PAID,
    "failed": EventType.REFUND_FAILED,
    "canceled": EventType.REFUND_FAILED,
}
"""The type of the webhook event for each of Stripe's statuses."""


async def enqueue_refund_event(connection: AsyncConnection, refund: StripeObject, intent: str | None) -> None:
    """Enqueue the customer's webhook event for the state of a refund just fetched from Stripe, once per state.

    `intent` is the payment intent of a credit purchase. Refunds that are not ours are ignored.
    """
    event_type = EVENT_TYPES.get(str(refund.get("status")))
    subject = None if event_type is None else await find_subject(connection, refund, intent)
    if event_type is None or subject is None:
        return
    created = int(refund.get("created") or 0) * 1000 or now_ms()

    async def build_data() -> Mapping[str, object]:
        statement = sa.select(customers.c.name).where(customers.c.id == subject.customer)
        return {
            "customer": (await connection.execute(statement)).scalar_one(),
            "id": refund["id"],
            "invoice": subject.invoice,
            "purchase": subject.purchase,
            "currency": refund["currency"],
            "amount": refund["amount"],
            "failure_reason": refund.get("failure_reason"),
        }

    occasion = (created, f"{event_type}:{refund['id']}")
    await enqueue_event(connection, subject.customer, event_type, now_ms(), build_data, occasion)
