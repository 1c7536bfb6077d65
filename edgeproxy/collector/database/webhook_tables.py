"""The tables of customers' webhooks, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

from edgeproxy.collector.database.schema import INTEGER, metadata

# Addresses of customers for webhook messages (collector/accounts/webhook_endpoints.py).
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),  # `we_…`.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("types", Text),  # JSON: the types that are sent; None: all.
    Column("secret", LargeBinary, nullable=False),  # Encrypted.
    Column("old_secret", LargeBinary),  # Encrypted. The previous secret, which also signs for a while.
    Column("old_secret_until", INTEGER),
    Column("state", Text, nullable=False),  # `enabled` or `disabled`.
    Column("disabled_why", Text),
    Column("failing_since", INTEGER),  # The first failure after the last success.
    Column("created_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),
    Index("webhook_endpoints_customer", "customer"),
    sqlite_strict=True,
)

# Events for customers, written in the transaction that causes them (collector/webhooks/messages.py).
webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", Text, primary_key=True),  # `msg_…`, in chronological order.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON, as sent.
    Column("at", INTEGER, nullable=False),
    Index("webhook_messages_customer", "customer"),
    Index("webhook_messages_at", "at"),
    sqlite_strict=True,
)

# Deliveries of messages to endpoints (collector/webhooks/deliveries.py).
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("message", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("state", Text, nullable=False),  # `due`, `sent` or `dead`.
    Column("attempts", INTEGER, nullable=False),
    Column("due_at", INTEGER, nullable=False),  # When it is tried next.
    Column("busy_until", INTEGER, nullable=False),  # The lease of the collector that is trying it.
    Column("status", INTEGER),  # Status of the last response.
    Column("error", Text),  # Why the last attempt failed.
    Column("attempted_at", INTEGER),
    Index("webhook_deliveries_state", "state", "due_at"),
    Index("webhook_deliveries_endpoint", "endpoint", "message"),
    sqlite_strict=True,
)
