"""Customers' webhook events about their credits, by the kind of transaction in the journal."""

from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.journal.postings import TransactionKind
from edgeproxy.collector.database.credit_tables import credit_balances, credit_grants
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import enqueue_event

EVENT_TYPES: Final[Mapping[TransactionKind, EventType]] = {
    "purchase": EventType.CREDITS_PURCHASED,
    "gift": EventType.CREDITS_GRANTED,
    "withdrawal": EventType.CREDITS_WITHDRAWN,
    "usage_refund": EventType.CREDITS_RETURNED,
    "expiry": EventType.CREDITS_EXPIRED,
    "expiry_reversed": EventType.CREDITS_RESTORED,
}
"""The type of the webhook event for each kind of transaction.

Refunds of money have types of their own (invoices/refund_events.py).
"""


async def enqueue_credit_events(connection: AsyncConnection, transactions: Iterable[Mapping[str, object]]) -> None:
    """Enqueue customers' webhook events for the transactions written in this database transaction.

    `transactions` are rows of the table `credit_transactions`.
    """
    for row in transactions:
        event_type = EVENT_TYPES.get(row["kind"])  # type: ignore[call-overload]
        if event_type is None:
            continue
        customer = str(row["customer"])

        async def build_data(row: Mapping[str, object] = row, customer: str = customer) -> Mapping[str, object]:
            grant = None if row["kind"] == "usage_refund" else row["original"] or None
            statement = sa.select(customers.c.name, credit_balances.c.balance)
            statement = statement.join_from(customers, credit_balances, credit_balances.c.customer == customers.c.id)
            name, balance = (await connection.execute(statement.where(customers.c.id == customer))).one()
            expiry = sa.select(credit_grants.c.expires_at).where(credit_grants.c.id == grant)
            expires_at = await connection.scalar(expiry)
            return {
                "customer": name,
                "id": row["source"],
                "grant": grant,
                "currency": row["currency"],
                "millicredits": row["amount"],
                "balance": balance,
                "expires_at": None if expires_at is None else format_timestamp(expires_at),
            }

        await enqueue_event(connection, customer, event_type, int(str(row["at"])), build_data)
