"""The tables of plans, subscriptions, invoices and related records. Amounts are whole cents.

Rows refer to customers by id, because a deleted customer loses its name but keeps its invoices. Times are Unix seconds;
times of changes are Unix milliseconds.
"""

from sqlalchemy import Column, ForeignKey, Index, Text, UniqueConstraint

from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.marks import (
    ADD,
    ALL,
    BOOKS,
    CHANGE,
    CLEARS,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    DIMENSION,
    EMAIL,
    FAILURE,
    ID,
    OPERATOR,
    READ,
    REASON,
    SERVED_NAME,
    STRIPE_ID,
    ImpersonalText,
    Owner,
    Subject,
    closed,
    mark,
    of_customers,
    personal,
)
from edgeproxy.collector.database.schema import INTEGER, partial_index, required, strict_table

CANCELED = "canceled"
"""The state of a subscription that has ended."""
UNBOOKED_INVOICES = "invoices.booked <> invoices.state AND invoices.state IN ('open', 'paid', 'uncollectible', 'void')"
UNBOOKED_CREDIT_NOTES = "credit_notes.booked <> credit_notes.state AND credit_notes.state IN ('made', 'void')"
UNBOOKED_DISPUTES = "disputes.booked <> disputes.taken_off"
"""Conditions for rows whose current state is not in the journal.

Partial indexes contain only such rows. A query uses the index only if it contains the literal condition.
"""

# Plan versions as they were sold. Invoices are rated by these, even if plans.yaml has changed since.
plan_versions = strict_table(
    "plan_versions",
    Column("version", Text, primary_key=True, info=CUSTOMER_NAME),  # standard@3, standard@3+acme
    required("settings", ImpersonalText),  # JSON, as in plans.yaml.
    required("created_at", INTEGER),
    info=of_customers(
        None,
        BOOKS,
        rights=READ,
        condition=f"split_part(version, '+', 2) IN ('', {SERVED_NAME})",
        copies="backups; a price of one customer is `PLAN@N+NAME`",
        not_exported="plans of all; this one's is in `subscriptions`",
    ),
)

# Scheduled price changes.
price_changes = strict_table(
    "price_changes",
    Column("id", ImpersonalText, primary_key=True),
    required("at", INTEGER),
    required("state", ImpersonalText),  # scheduled, done or withdrawn.
    required("why", Text, info=REASON),
    required("created_at", INTEGER),
    required("created_by", Text, info=OPERATOR),
    Column("decided_at", INTEGER),  # When it was done or withdrawn.
    Index("price_changes_state", "state", "at"),
    info=closed("who has changed prices, and why", BOOKS),
)

# The version that a price change moves the subscribers of a plan to, at the first period that begins at or after `at`.
price_moves = strict_table(
    "price_moves",
    Column("change", ImpersonalText, ForeignKey("price_changes.id"), primary_key=True),
    Column("plan", Text, primary_key=True, info=CUSTOMER_NAME),  # standard, or standard+acme for one customer's price.
    # The version sold until then.
    required("before", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    required("after", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    required("at", INTEGER),
    required("withdrawn", INTEGER, server_default="0"),
    info=of_customers(
        None,
        BOOKS,
        rights=READ,
        condition=f"split_part(after, '+', 2) IN ('', {SERVED_NAME})",
        not_exported="plans of all; this one's is in `subscriptions`",
    ),
)
_IN_FORCE = "withdrawn = 0"
partial_index("price_moves_after", price_moves.c.after, unique=True, where=_IN_FORCE)
partial_index("price_moves_plan_at", price_moves.c.plan, price_moves.c.at, unique=True, where=_IN_FORCE)

# A customer's account at Stripe.
billing_customers = strict_table(
    "billing_customers",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    required("stripe_id", Text, info=STRIPE_ID),
    Column("email_hash", Text, info=mark(EMAIL, is_cleared=True, in_clear="a hash")),
    Column("email_changed_at", INTEGER),  # The name or the address, in milliseconds; None once Stripe has both.
    Column(
        "country",
        Text,
        info=personal("country of a customer", Subject.CUSTOMER, "tax", in_clear="invoices are made by it"),
    ),
    Column("tax_status", ImpersonalText),
    required("livemode", INTEGER),
    Column("deleted_at", INTEGER),  # When it was deleted at Stripe, by hand or after an erasure; milliseconds.
    Column("deletion_tried_at", INTEGER),  # The last check whether deletion is possible.
    Column("deletion_waits_for", ImpersonalText),  # Why deletion was not possible then.
    UniqueConstraint("stripe_id", name="billing_customers_stripe_id_key"),
    info=of_customers(ID, BOOKS, CLEARS, rights=ADD, copies="backups; Stripe"),
)

# Stripe's last known payment method and billing details of a customer, each as JSON.
billing_details = strict_table(
    "billing_details",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    # Name, e-mail address, address and tax numbers.
    required(
        "payer",
        Text,
        info=personal("name, addresses and tax numbers on invoices", Subject.CUSTOMER, "invoicing", is_sealed=True),
    ),
    # Brand, last digits and expiry; None: there is none.
    Column(
        "payment_method",
        Text,
        info=personal(
            "brand, last four digits and expiry of a card", Subject.CUSTOMER, "showing by what is paid", is_sealed=True
        ),
    ),
    required("read_at", INTEGER),  # When Stripe returned them, in milliseconds; 0: read again.
    info=of_customers(ID, DELETION, DELETES, rights=ALL, copies="backups; Stripe, whose copy this is"),
)

subscriptions = strict_table(
    "subscriptions",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7, like all ids here.
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    # The current version.
    required("plan_version", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    required("is_yearly", INTEGER),  # 1: the fee is paid yearly in advance.
    # The states are in collector/billing/subscriptions/subscription_rows.py.
    required("state", ImpersonalText),
    Column("anchor", INTEGER),  # Where months begin; None: on the 1st.
    required("period_start", INTEGER),
    required("period_end", INTEGER),
    # The plan version after the paid period.
    Column("next_version", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    required("quantity", INTEGER, server_default="1"),  # The number of units of the plan.
    Column("next_quantity", INTEGER),  # The quantity after the paid period; None: no change.
    Column("next_is_yearly", INTEGER),  # 1: paid yearly after the paid period; None: no change.
    Column("cancel_at", INTEGER),  # When it ends or ended.
    Column("trial_ends_at", INTEGER),  # When its trial ends or ended.
    required("tier_before", ImpersonalText),  # The customer's tier without the subscription.
    Column("stripe_id", Text, info=STRIPE_ID),  # Only with `collection: meters`.
    # The version whose prices Stripe's subscription has; None if it has ended.
    Column("told_version", Text, info=CUSTOMER_NAME),
    required("created_at", INTEGER),
    required("version", INTEGER),  # Grows with each change: the ETag.
    UniqueConstraint("stripe_id", name="subscriptions_stripe_id_key"),
    Index("subscriptions_customer", "customer"),
    info=of_customers(ID, BOOKS, rights=CHANGE, copies="backups; Stripe"),
)
_LIVE = f"state <> '{CANCELED}'"
partial_index("subscriptions_live", subscriptions.c.customer, unique=True, where=_LIVE)
partial_index("subscriptions_period_end", subscriptions.c.period_end, where=_LIVE)

# The customer's reason for canceling, if given. The row is deleted if the customer resumes the plan.
cancellations = strict_table(
    "cancellations",
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id"), primary_key=True),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    Column("reason", ImpersonalText),  # The reasons are in collector/billing/subscriptions/cancellations.py.
    Column(
        "comment",
        Text,
        info=personal(
            "why a customer left, in its words",
            Subject.CUSTOMER,
            "knowing what to mend",
            is_cleared=True,
            is_sealed=True,
        ),
    ),
    required("created_at", INTEGER),
    Index("cancellations_customer", "customer"),
    Index("cancellations_created_at", "created_at"),
    info=of_customers(
        ID,
        f"for good, as reasons are counted; the comment {DELETION}",
        CLEARS,
        rights=ALL,
        copies="backups; Stripe, with plans that are collected by its meters",
    ),
)

# The parts of a period with one plan version. The fee has its own row, with an empty meter.
segments = strict_table(
    "segments",
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id"), primary_key=True),
    Column("meter", ImpersonalText, primary_key=True),
    Column("start", INTEGER, primary_key=True, autoincrement=False),
    required("end", INTEGER),
    required("plan_version", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    required("is_yearly", INTEGER),
    required("period_start", INTEGER),
    required("period_end", INTEGER),
    required("paid_start", INTEGER),  # The time that the fee covers: the period or the year.
    required("paid_end", INTEGER),
    Column("stripe_item", ImpersonalText),
    Column("stripe_price", ImpersonalText),
    # How its usage is collected, as configured when the segment began.
    required("collection", ImpersonalText, server_default="invoice_items"),
    required("is_resting", INTEGER, server_default="0"),  # 1: its fee is paused.
    required("quantity", INTEGER, server_default="1"),  # The number of units of the plan.
    Column("told_from", INTEGER),  # Stripe counts its events from here; None: Stripe gets none.
    Column("told_until", INTEGER),  # When Stripe's count became final; None: it may still grow.
    info=of_customers(Owner("subscription", "subscriptions"), BOOKS, rights=CHANGE, copies="backups; Stripe"),
)

invoices = strict_table(
    "invoices",
    Column("id", ImpersonalText, primary_key=True),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id")),
    required("period", ImpersonalText),  # The first day of the period: 2027-01-01.
    required("kind", ImpersonalText),  # start, change or period.
    required("state", ImpersonalText),  # The states are in collector/billing/invoices/invoices.py.
    Column("stripe_id", BookText("invoices.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    # Comma-separated.
    required("replaced_ids", BookText("invoices.replaced_ids"), server_default="", info=mark(STRIPE_ID, is_ended=True)),
    required("subtotal", INTEGER),  # Cents, without tax.
    required("total", INTEGER),
    required("amount_due", INTEGER, server_default="0"),  # Unpaid amount according to Stripe.
    required("amount_paid", INTEGER, server_default="0"),
    required("paid_off_stripe", INTEGER, server_default="0"),  # The part paid outside Stripe.
    required("balance_applied", INTEGER, server_default="0"),  # Taken from the customer's balance.
    required("currency", ImpersonalText),
    required("period_start", INTEGER),
    required("period_end", INTEGER),
    required("closes_at", INTEGER),  # Usage may change it until then.
    Column("held_why", BookText("invoices.held_why"), info=mark(REASON, is_ended=True)),
    Column("voided_why", BookText("invoices.voided_why"), info=mark(REASON, is_ended=True)),
    # Why a held invoice was sent anyway.
    Column("accepted_why", BookText("invoices.accepted_why"), info=mark(REASON, is_ended=True)),
    Column("pdf", BookText("invoices.pdf"), info=mark(STRIPE_ID, is_ended=True)),
    # Page where the customer views and pays it.
    Column("url", BookText("invoices.url"), info=mark(STRIPE_ID, is_ended=True)),
    # As printed by Stripe; None until finalized there.
    Column("number", BookText("invoices.number", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    Column("issued_at", INTEGER),  # When Stripe finalized it.
    Column("due_at", INTEGER),  # Equal to `issued_at` if it is charged automatically.
    Column("paid_at", INTEGER),
    required("tries", INTEGER),  # Idempotency-Keys used up by permanent failures.
    required("failures", INTEGER),  # Failed calls to Stripe; each failure lengthens the delay.
    required("try_at", INTEGER),  # When it is processed next.
    Column("error", BookText("invoices.error"), info=mark(FAILURE, is_ended=True)),
    required("created_at", INTEGER),
    required("booked", ImpersonalText, server_default=""),  # The last state in the journal.
    UniqueConstraint("customer", "period", "kind", name="invoices_customer_period_kind_key"),
    UniqueConstraint("stripe_id", name="invoices_stripe_id_key"),
    Index("invoices_state", "state", "closes_at"),
    Index("invoices_state_id", "state", "id"),
    Index("invoices_number", "number"),
    partial_index("invoices_unbooked", "id", where=UNBOOKED_INVOICES),
    info=of_customers(ID, BOOKS, rights=CHANGE, copies="backups; Stripe"),
)

# The parties of an invoice as Stripe printed them: JSON.
invoice_parties = strict_table(
    "invoice_parties",
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    # Name, address and tax numbers of the customer, and name of the seller.
    required(
        "parties",
        Text,
        info=personal("name, address and tax numbers on an invoice", Subject.CUSTOMER, "invoicing", is_sealed=True),
    ),
    Index("invoice_parties_customer", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ALL, copies="backups; Stripe, whose copy this is"),
)

# Invoice lines as our rating computed them. They are written when an invoice is closed and never change.
invoice_lines = strict_table(
    "invoice_lines",
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    required("kind", ImpersonalText),  # fee, proration, usage or late.
    required("plan_version", Text, info=CUSTOMER_NAME),
    required("segment_start", INTEGER),
    required("segment_end", INTEGER),
    required("meter", ImpersonalText),
    # Value of the dimension that the price depends on.
    required("value", Text, info=mark(DIMENSION, is_ended=True)),
    required("tier", INTEGER),
    required("quantity", INTEGER),
    required("package", INTEGER, server_default="1"),  # Units per `quantity`.
    Column("unit_price", ImpersonalText),  # Cents, a decimal; None for fees.
    required("amount", INTEGER),
    required("start", INTEGER),
    required("end", INTEGER),
    required("text", Text, info=mark(DIMENSION, is_ended=True)),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=ADD, copies="backups; Stripe"),
)

# Credit notes: amounts taken off an open or paid invoice.
credit_notes = strict_table(
    "credit_notes",
    Column("id", ImpersonalText, primary_key=True),
    required("invoice", ImpersonalText, ForeignKey("invoices.id")),
    required("amount", INTEGER),
    required("refunded", INTEGER, server_default="0"),  # The part of the amount paid back.
    # The rest of a paid invoice's amount: credited to the customer's balance, or repaid outside Stripe.
    required("to_balance", INTEGER, server_default="0"),
    required("off_stripe", INTEGER, server_default="0"),
    required("why", BookText("credit_notes.why"), info=mark(REASON, is_ended=True)),
    required("state", ImpersonalText),  # requested, made or refused.
    Column("stripe_id", BookText("credit_notes.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    Column("error", BookText("credit_notes.error"), info=mark(FAILURE, is_ended=True)),
    required("tries", INTEGER),
    required("failures", INTEGER, server_default="0"),  # Failed calls.
    required("try_at", INTEGER, server_default="0"),  # The Unix second of the next try.
    required("created_at", INTEGER),
    required("booked", ImpersonalText, server_default=""),  # The last state in the journal.
    UniqueConstraint("stripe_id", name="credit_notes_stripe_id_key"),
    Index("credit_notes_invoice", "invoice"),
    partial_index("credit_notes_unbooked", "id", where=UNBOOKED_CREDIT_NOTES),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=READ, copies="backups; Stripe"),
)

# Payments that a bank has reversed or questions.
disputes = strict_table(
    "disputes",
    Column("id", ImpersonalText, primary_key=True),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    Column("invoice", ImpersonalText, ForeignKey("invoices.id")),  # The paid invoice; NULL for a purchase of credits.
    Column("purchase", ImpersonalText, ForeignKey("credit_grants.id")),  # The paid grant.
    required("state", ImpersonalText),  # The states are in collector/billing/invoices/disputes.py.
    required("amount", INTEGER),
    required("currency", ImpersonalText),
    required("reason", ImpersonalText),  # A reason code of Stripe.
    Column("answer_by", INTEGER),  # The last second for a response; NULL if none is possible.
    required("taken_off", INTEGER, server_default="0"),  # The lost part of the invoice.
    required("booked", INTEGER, server_default="0"),  # The part of `taken_off` in the journal.
    Column("stripe_id", BookText("disputes.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    required("created_at", INTEGER),
    Column("closed_at", INTEGER),
    UniqueConstraint("stripe_id", name="disputes_stripe_id_key"),
    Index("disputes_invoice", "invoice"),
    Index("disputes_state", "state", "answer_by"),
    partial_index("disputes_unbooked", "id", where=UNBOOKED_DISPUTES),
    info=of_customers(ID, BOOKS, rights=READ, copies="backups; Stripe"),
)

# Invoices with a declined payment, and the time of the next attempt.
dunning = strict_table(
    "dunning",
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    required("state", ImpersonalText),  # The states are in collector/billing/invoices/dunning.py.
    required("declines", INTEGER),
    required("declined_at", INTEGER),  # The first decline; the schedule starts here.
    Column("retry_at", INTEGER),  # None: it waits for another payment method.
    # The last declined one.
    Column(
        "payment_method", BookText("dunning.payment_method", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)
    ),
    required("why", BookText("dunning.why"), info=mark(FAILURE, is_ended=True)),
    Index("dunning_retry_at", "state", "retry_at"),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=READ),
)

# The number of redemptions of each coupon.
coupons = strict_table(
    "coupons",
    Column("code", ImpersonalText, primary_key=True),
    required("redemptions", INTEGER),
    info=closed("how often coupons were redeemed; used with the rights of the collector", BOOKS),
)

# Coupons that customers redeemed, with the discount at that time. Later changes of collector.yaml do not apply.
coupon_redemptions = strict_table(
    "coupon_redemptions",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("code", ImpersonalText, primary_key=True),
    required("subscription", ImpersonalText, ForeignKey("subscriptions.id")),
    Column("share", INTEGER),  # The discount in units of 10⁻¹² of each cent; None: it is an amount.
    Column("amount_off", INTEGER),  # Cents per period.
    required("plans", ImpersonalText),  # Names of the discounted plans, separated by commas; empty: all.
    required("starts", INTEGER),  # The beginning of its first period.
    Column("until", INTEGER),  # The beginning of the first period without it; None: unlimited.
    required("created_at", INTEGER),
    Index("coupon_redemptions_subscription", "subscription"),
    info=of_customers(ID, BOOKS, rights=ADD),
)

# Subscriptions of an existing Stripe account. Ours begins when the time paid there ends.
imported_subscriptions = strict_table(
    "imported_subscriptions",
    Column("stripe_id", Text, primary_key=True, info=STRIPE_ID),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("plan_version", Text, info=CUSTOMER_NAME),
    required("is_yearly", INTEGER),
    required("anchor", INTEGER),  # Where months begin, unless that is the 1st.
    required("begins_at", INTEGER),
    # The states are in collector/billing/subscriptions/imported_rows.py.
    required("state", ImpersonalText),
    Column("why", ImpersonalText),  # Why it was dropped.
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id")),  # The subscription that replaced it.
    required("created_at", INTEGER),
    info=of_customers(ID, BOOKS, rights=READ),
)
_WAITING = "state = 'waiting'"
partial_index("imported_subscriptions_waiting", imported_subscriptions.c.customer, unique=True, where=_WAITING)
partial_index("imported_subscriptions_begins_at", imported_subscriptions.c.begins_at, where=_WAITING)

# Amounts that trigger an alert when the costs of a customer's period reach them.
spend_alerts = strict_table(
    "spend_alerts",
    Column("customer", Text, primary_key=True, info=CUSTOMER_ID),  # The id.
    Column("amount", INTEGER, primary_key=True, autoincrement=False),  # Cents.
    info=of_customers(ID, DELETION, DELETES, rights=ALL),
)
