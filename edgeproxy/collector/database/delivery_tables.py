"""Tables of the exchange with Stripe: the outbox, webhooks, reconciliation and the roll-out.

Times of usage are Unix seconds; times of actions are Unix milliseconds.
"""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Text

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
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

# Usage on its way to Stripe (collector/billing/meter_export/outbox.py): a customer's usage of a meter in a slice of
# time, and each correction of it.
billing_outbox = strict_table(
    "billing_outbox",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    Column("slice", INTEGER, primary_key=True, autoincrement=False),  # The slice's first second.
    Column("revision", INTEGER, primary_key=True, autoincrement=False),
    required("until", INTEGER),  # The slice's end.
    required("segment", INTEGER),  # The first second of its segment.
    required("value", INTEGER),  # For a revision, the difference.
    required("identifier", ImpersonalText),
    required("since", INTEGER, server_default="0"),  # Stripe ignores earlier events.
    Column("dated", INTEGER),  # The timestamp; None if no minute is left, which makes it late.
    required("state", ImpersonalText),
    required("attempts", INTEGER, server_default="0"),
    required("key", INTEGER, server_default="0"),  # The number of the Idempotency-Key.
    required("in_doubt", INTEGER, server_default="0"),  # 1: an attempt had no definite answer.
    required("due", INTEGER, server_default="0"),  # Milliseconds; it is not sent before.
    Column("first_sent", INTEGER),
    Column("answer", Text, info=FAILURE),  # Stripe's last answer.
    required("created", INTEGER),
    Column("settled", INTEGER),  # When it reached a final state.
    Index("billing_outbox_identifier", "identifier", unique=True),
    Index("billing_outbox_state", "state", "due"),
    Index("billing_outbox_slice", "slice"),
    Index("billing_outbox_until", "until"),
    info=of_customers(NAME, BOOKS, copies="backups; Stripe"),
)

# The slices whose usage has been read and fixed.
billing_slices = strict_table(
    "billing_slices",
    Column("start", INTEGER, primary_key=True, autoincrement=False),
    required("until", INTEGER),
    required("fixed", INTEGER),
    info=closed("which slices of time are exported", BOOKS),
)

# One row: the status of the exporter.
billing_exporter = strict_table(
    "billing_exporter",
    required("heartbeat", INTEGER),  # 0 before its first.
    required("length", INTEGER),  # Seconds of a slice.
    Column("stopped", ImpersonalText),  # Why nothing is sent; None while sending.
    # Rows that end within this time are looked up at Stripe before they are sent, because the database was restored.
    required("recheck_from", INTEGER, server_default="0"),
    required("recheck_until", INTEGER, server_default="0"),
    info=closed("how the exporter is", ONE),
)

# Events from Stripe (collector/billing/webhooks/receiver.py). They are stored before they are acknowledged.
webhook_events = strict_table(
    "webhook_events",
    Column("id", ImpersonalText, primary_key=True),
    required("type", ImpersonalText),
    required("object_type", ImpersonalText),
    required("object", Text, info=STRIPE_ID),  # The id of the changed object.
    required("livemode", INTEGER),
    required("created", INTEGER),  # Unix seconds, by Stripe's clock.
    required("received", INTEGER),
    required("source", ImpersonalText),  # `webhook`, `poll` or `replay`.
    required("state", ImpersonalText),
    required("attempts", INTEGER, server_default="0"),
    required("due", INTEGER, server_default="0"),
    Column("error", Text, info=FAILURE),
    # Encrypted.
    required(
        "payload",
        LargeBinary,
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
)

# How far Stripe's event lists were read (collector/billing/webhooks/processor.py), so that events of a long outage are
# found.
webhook_polls = strict_table(
    "webhook_polls",
    Column("list", ImpersonalText, primary_key=True),  # `snapshots` or `thin`.
    required("until", INTEGER),  # A second of Stripe's clock.
    Column("began", INTEGER),  # When the last complete reading began, by our clock.
    info=closed("how far Stripe's lists were read", ONE),
)

# Results of reconciliations (collector/billing/mismatch.py).
reconciliations = strict_table(
    "reconciliations",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    required("kind", ImpersonalText),
    required("since", INTEGER),
    required("until", INTEGER),
    required("at", INTEGER),
    required("compared", INTEGER),
    required("units", INTEGER),
    required("different", INTEGER),
    required("level", ImpersonalText),
    required("rows", Text, info=CUSTOMER_NAME),  # JSON: the discrepancies, largest first.
    # JSON: compared, units and different of each.
    required("meters", ImpersonalText, server_default="{}"),
    Column("cents", INTEGER),  # About the price of the units; None if the units are money.
    Column("cents_different", INTEGER),
    Index("reconciliations_kind", "kind", "at"),
    info=closed(
        "comparisons over all customers",
        BOOKS,
        not_exported="differences of all; what was compared is in `invoices` and `credit_transactions`",
    ),
)

# The shadow log: the amount of each invoice by one rating of all known usage, whether or not the customer is charged.
rated = strict_table(
    "rated",
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    required("at", INTEGER),
    required("shadow", INTEGER),  # Cents.
    Column("real", INTEGER),  # The invoice at Stripe without tax; None: not charged, or not yet.
    Column("charged_at", INTEGER),
    Index("rated_at", "at"),
    Index("rated_charged_at", "charged_at"),
    info=of_customers(Owner("invoice", "invoices"), BOOKS),
)

# Results of calls to the billing API: one row per hour, summed over all collectors.
billing_answers = strict_table(
    "billing_answers",
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    required("requests", INTEGER),
    required("errors", INTEGER),  # 500 and above.
    info=closed("how the API of billing answers", "for good, as a row for each hour is two numbers"),
)

# One row: the share of customers who are charged, as set at run time.
rollout = strict_table(
    "rollout",
    Column("percent", INTEGER),  # None: as configured.
    required("since", INTEGER),  # The time when `percent` was set.
    required("charging", INTEGER),
    Column("stopped_by", Text, info=OPERATOR),  # The person who stopped charging; None while charging.
    Column("message", Text, info=REASON),  # The text for customers meanwhile.
    required("version", INTEGER),
    Column("credits_meter", ImpersonalText),  # The meter that spends prepaid credits, as configured; None: not sold.
    info=shared("who is charged, as people say at run time", "until it is replaced", copies="backups; portal"),
)

# Times without charges. They are kept for ever.
waivers = strict_table(
    "billing_waivers",
    Column("since", INTEGER, primary_key=True, autoincrement=False),  # A whole minute.
    Column("until", INTEGER),  # None while it lasts.
    required("who", Text, info=OPERATOR),
    required("why", Text, info=REASON),
    info=shared("when nothing was charged", BOOKS),
)
