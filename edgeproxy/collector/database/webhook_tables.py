"""The tables of customers' webhooks, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

from edgeproxy.collector.database.marks import (
    ADD,
    ALL,
    CUSTOMER_ID,
    DELETES,
    DELETION,
    FAILURE,
    FREE,
    ID,
    MESSAGE,
    REASON,
    SECRET,
    ImpersonalText,
    Owner,
    mark,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, metadata

# Addresses of customers for webhook messages (collector/webhook_endpoints/endpoints.py).
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # `we_…`.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("url", Text, nullable=False, info=mark(FREE, is_sealed=True)),
    Column("description", Text, info=mark(FREE, is_sealed=True)),
    Column("types", ImpersonalText),  # JSON: the types that are sent; None: all.
    Column("secret", LargeBinary, nullable=False, info=SECRET),  # Encrypted.
    Column("old_secret", LargeBinary, info=SECRET),  # Encrypted. The previous secret, which also signs for a while.
    Column("old_secret_until", INTEGER),
    Column("state", ImpersonalText, nullable=False),  # `enabled` or `disabled`.
    Column("disabled_why", Text, info=mark(REASON, in_clear="the collector's own words")),
    Column("failing_since", INTEGER),  # The first failure after the last success.
    Column("created_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),
    Index("webhook_endpoints_customer", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ALL),
    sqlite_strict=True,
)

# Events for customers, written in the transaction that causes them (collector/webhooks/messages.py).
webhook_messages = Table(
    "webhook_messages",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # `msg_…`, in chronological order.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("type", ImpersonalText, nullable=False),
    Column("body", Text, nullable=False, info=mark(MESSAGE, is_sealed=True)),  # JSON, as sent.
    Column("at", INTEGER, nullable=False),
    Index("webhook_messages_customer", "customer"),
    Index("webhook_messages_at", "at"),
    info=of_customers(ID, "30 days", DELETES, rights=ADD, copies="backups; the customer's own server"),
    sqlite_strict=True,
)

# Deliveries of messages to endpoints (collector/webhooks/deliveries.py).
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("message", ImpersonalText, primary_key=True),
    Column("endpoint", ImpersonalText, primary_key=True),
    Column("state", ImpersonalText, nullable=False),  # `due`, `sent` or `dead`.
    Column("attempts", INTEGER, nullable=False),
    Column("due_at", INTEGER, nullable=False),  # When it is tried next.
    Column("busy_until", INTEGER, nullable=False),  # The lease of the collector that is trying it.
    Column("status", INTEGER),  # Status of the last response.
    Column("error", Text, info=FAILURE),  # Why the last attempt failed.
    Column("attempted_at", INTEGER),
    Index("webhook_deliveries_state", "state", "due_at"),
    Index("webhook_deliveries_endpoint", "endpoint", "message"),
    info=of_customers(
        Owner("message", "webhook_messages"),
        "30 days",
        DELETES,
        rights=ALL,
        narrowed=Owner("endpoint", "webhook_endpoints"),
    ),
    sqlite_strict=True,
)
