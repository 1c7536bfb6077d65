"""The tables of customers' webhooks, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Text

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
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

# Addresses of customers for webhook messages (collector/webhook_endpoints/endpoints.py).
webhook_endpoints = strict_table(
    "webhook_endpoints",
    Column("id", ImpersonalText, primary_key=True),  # `we_…`.
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("url", Text, info=mark(FREE, is_sealed=True)),
    Column("description", Text, info=mark(FREE, is_sealed=True)),
    Column("types", ImpersonalText),  # JSON: the types that are sent; None: all.
    required("secret", LargeBinary, info=SECRET),  # Encrypted.
    Column("old_secret", LargeBinary, info=SECRET),  # Encrypted. The previous secret, which also signs for a while.
    Column("old_secret_until", INTEGER),
    required("state", ImpersonalText),  # `enabled` or `disabled`.
    Column("disabled_why", Text, info=mark(REASON, in_clear="the collector's own words")),
    Column("failing_since", INTEGER),  # The first failure after the last success.
    required("created_at", INTEGER),
    required("version", INTEGER),
    Index("webhook_endpoints_customer", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ALL),
)

# Events for customers, written in the transaction that causes them (collector/webhooks/messages.py).
webhook_messages = strict_table(
    "webhook_messages",
    Column("id", ImpersonalText, primary_key=True),  # `msg_…`, in chronological order.
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("type", ImpersonalText),
    required("body", Text, info=mark(MESSAGE, is_sealed=True)),  # JSON, as sent.
    required("at", INTEGER),
    Index("webhook_messages_customer", "customer"),
    Index("webhook_messages_at", "at"),
    info=of_customers(ID, "30 days", DELETES, rights=ADD, copies="backups; the customer's own server"),
)

# Deliveries of messages to endpoints (collector/webhooks/deliveries.py).
webhook_deliveries = strict_table(
    "webhook_deliveries",
    Column("message", ImpersonalText, primary_key=True),
    Column("endpoint", ImpersonalText, primary_key=True),
    required("state", ImpersonalText),  # `due`, `sent` or `dead`.
    required("attempts", INTEGER),
    required("due_at", INTEGER),  # When it is tried next.
    required("busy_until", INTEGER),  # The lease of the collector that is trying it.
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
)
