"""Tables of the exchange with Stripe: the outbox, webhooks, reconciliation and the roll-out.

Times of usage are Unix seconds; times of actions are Unix milliseconds.
"""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

from edgeproxy.collector.database.marks import (
    BOOKS,
    CUSTOMER_NAME,
    FAILURE,
    NAME,
    ONE,
    OPERATOR,
    REASON,
    STRIPE_ID,
    ImpersonalText,
    Owner,
    Subject,
    closed,
    of_customers,
    personal,
    shared,
)
from edgeproxy.collector.database.schema import INTEGER, metadata

# Usage on its way to Stripe (collector/billing/meter_export/outbox.py): a customer's usage of a meter in a slice of
# time, and each correction of it.
billing_outbox = Table(
    "billing_outbox",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    Column("slice", INTEGER, primary_key=True, autoincrement=False),  # The slice's first second.
    Column("revision", INTEGER, primary_key=True, autoincrement=False),
    Column("until", INTEGER, nullable=False),  # The slice's end.
    Column("segment", INTEGER, nullable=False),  # The first second of its segment.
    Column("value", INTEGER, nullable=False),  # For a revision, the difference.
    Column("identifier", ImpersonalText, nullable=False),
    Column("since", INTEGER, nullable=False, server_default="0"),  # Stripe ignores earlier events.
    Column("dated", INTEGER),  # The timestamp; None if no minute is left, which makes it late.
    Column("state", ImpersonalText, nullable=False),
    Column("attempts", INTEGER, nullable=False, server_default="0"),
    Column("key", INTEGER, nullable=False, server_default="0"),  # The number of the Idempotency-Key.
    Column("in_doubt", INTEGER, nullable=False, server_default="0"),  # 1: an attempt had no definite answer.
    Column("due", INTEGER, nullable=False, server_default="0"),  # Milliseconds; it is not sent before.
    Column("first_sent", INTEGER),
    Column("answer", Text, info=FAILURE),  # Stripe's last answer.
    Column("created", INTEGER, nullable=False),
    Column("settled", INTEGER),  # When it reached a final state.
    Index("billing_outbox_identifier", "identifier", unique=True),
    Index("billing_outbox_state", "state", "due"),
    Index("billing_outbox_slice", "slice"),
    Index("billing_outbox_until", "until"),
    info=of_customers(NAME, BOOKS, copies="backups; Stripe"),
    sqlite_strict=True,
)

# The slices whose usage has been read and fixed.
billing_slices = Table(
    "billing_slices",
    metadata,
    Column("start", INTEGER, primary_key=True, autoincrement=False),
    Column("until", INTEGER, nullable=False),
    Column("fixed", INTEGER, nullable=False),
    info=closed("which slices of time are exported", BOOKS),
    sqlite_strict=True,
)

# One row: the status of the exporter.
billing_exporter = Table(
    "billing_exporter",
    metadata,
    Column("heartbeat", INTEGER, nullable=False),  # 0 before its first.
    Column("length", INTEGER, nullable=False),  # Seconds of a slice.
    Column("stopped", ImpersonalText),  # Why nothing is sent; None while sending.
    # Rows that end within this time are looked up at Stripe before they are sent, because the database was restored.
    Column("recheck_from", INTEGER, nullable=False, server_default="0"),
    Column("recheck_until", INTEGER, nullable=False, server_default="0"),
    info=closed("how the exporter is", ONE),
    sqlite_strict=True,
)

# Events from Stripe (collector/billing/webhooks/receiver.py). They are stored before they are acknowledged.
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("type", ImpersonalText, nullable=False),
    Column("object_type", ImpersonalText, nullable=False),
    Column("object", Text, nullable=False, info=STRIPE_ID),  # The id of the changed object.
    Column("livemode", INTEGER, nullable=False),
    Column("created", INTEGER, nullable=False),  # Unix seconds, by Stripe's clock.
    Column("received", INTEGER, nullable=False),
    Column("source", ImpersonalText, nullable=False),  # `webhook`, `poll` or `replay`.
    Column("state", ImpersonalText, nullable=False),
    Column("attempts", INTEGER, nullable=False, server_default="0"),
    Column("due", INTEGER, nullable=False, server_default="0"),
    Column("error", Text, info=FAILURE),
    # Encrypted.
    Column(
        "payload",
        LargeBinary,
        nullable=False,
        info=personal(
            "names and addresses of payers, encrypted",
            Subject.CUSTOMER,
            "following payments",
            encryption="encrypted in any case, by a key of the configuration",
        ),
    ),
    Column("applied", INTEGER),
    Index("webhook_events_state", "state", "due"),
    Index("webhook_events_object", "object", "state"),
    Index("webhook_events_received", "received"),
    info=closed(
        "what Stripe has sent, encrypted",
        "60 days (`retention.webhooks`)",
        not_exported="what Stripe said, which Stripe has",
    ),
    sqlite_strict=True,
)

# How far Stripe's event lists were read (collector/billing/webhooks/processor.py), so that events of a long outage are
# found.
webhook_polls = Table(
    "webhook_polls",
    metadata,
    Column("list", ImpersonalText, primary_key=True),  # `snapshots` or `thin`.
    Column("until", INTEGER, nullable=False),  # A second of Stripe's clock.
    Column("began", INTEGER),  # When the last complete reading began, by our clock.
    info=closed("how far Stripe's lists were read", ONE),
    sqlite_strict=True,
)

# Results of reconciliations (collector/billing/mismatch.py).
reconciliations = Table(
    "reconciliations",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    Column("kind", ImpersonalText, nullable=False),
    Column("since", INTEGER, nullable=False),
    Column("until", INTEGER, nullable=False),
    Column("at", INTEGER, nullable=False),
    Column("compared", INTEGER, nullable=False),
    Column("units", INTEGER, nullable=False),
    Column("different", INTEGER, nullable=False),
    Column("level", ImpersonalText, nullable=False),
    Column("rows", Text, nullable=False, info=CUSTOMER_NAME),  # JSON: the discrepancies, largest first.
    # JSON: compared, units and different of each.
    Column("meters", ImpersonalText, nullable=False, server_default="{}"),
    Column("cents", INTEGER),  # About the price of the units; None if the units are money.
    Column("cents_different", INTEGER),
    Index("reconciliations_kind", "kind", "at"),
    info=closed(
        "comparisons over all customers",
        BOOKS,
        not_exported="differences of all; what was compared is in `invoices` and `credit_transactions`",
    ),
    sqlite_strict=True,
)

# The shadow log: the amount of each invoice by one rating of all known usage, whether or not the customer is charged.
rated = Table(
    "rated",
    metadata,
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    Column("at", INTEGER, nullable=False),
    Column("shadow", INTEGER, nullable=False),  # Cents.
    Column("real", INTEGER),  # The invoice at Stripe without tax; None: not charged, or not yet.
    Column("charged_at", INTEGER),
    Index("rated_at", "at"),
    Index("rated_charged_at", "charged_at"),
    info=of_customers(Owner("invoice", "invoices"), BOOKS),
    sqlite_strict=True,
)

# Results of calls to the billing API: one row per hour, summed over all collectors.
billing_answers = Table(
    "billing_answers",
    metadata,
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    Column("requests", INTEGER, nullable=False),
    Column("errors", INTEGER, nullable=False),  # 500 and above.
    info=closed("how the API of billing answers", "for good, as a row for each hour is two numbers"),
    sqlite_strict=True,
)

# One row: the share of customers who are charged, as set at run time.
rollout = Table(
    "rollout",
    metadata,
    Column("percent", INTEGER),  # None: as configured.
    Column("since", INTEGER, nullable=False),  # The time when `percent` was set.
    Column("charging", INTEGER, nullable=False),
    Column("stopped_by", Text, info=OPERATOR),  # The person who stopped charging; None while charging.
    Column("message", Text, info=REASON),  # The text for customers meanwhile.
    Column("version", INTEGER, nullable=False),
    Column("credits_meter", ImpersonalText),  # The meter that spends prepaid credits, as configured; None: not sold.
    info=shared("who is charged, as people say at run time", "until it is replaced", copies="backups; portal"),
    sqlite_strict=True,
)

# Times without charges. They are kept for ever.
waivers = Table(
    "billing_waivers",
    metadata,
    Column("since", INTEGER, primary_key=True, autoincrement=False),  # A whole minute.
    Column("until", INTEGER),  # None while it lasts.
    Column("who", Text, nullable=False, info=OPERATOR),
    Column("why", Text, nullable=False, info=REASON),
    info=shared("when nothing was charged", BOOKS),
    sqlite_strict=True,
)
