"""The tables of plans, subscriptions, invoices and related records. Amounts are whole cents.

Rows refer to customers by id, because a deleted customer loses its name but keeps its invoices. Times are Unix seconds;
times of changes are Unix milliseconds.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint, text

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
from edgeproxy.collector.database.schema import INTEGER, metadata

CANCELED = "canceled"
"""The state of a subscription that has ended."""
UNBOOKED_INVOICES = "invoices.booked <> invoices.state AND invoices.state IN ('open', 'paid', 'uncollectible', 'void')"
UNBOOKED_CREDIT_NOTES = "credit_notes.booked <> credit_notes.state AND credit_notes.state IN ('made', 'void')"
UNBOOKED_DISPUTES = "disputes.booked <> disputes.taken_off"
"""Conditions for rows whose current state is not in the journal.

Partial indexes contain only such rows. A query uses the index only if it contains the literal condition.
"""

# Plan versions as they were sold. Invoices are rated by these, even if plans.yaml has changed since.
plan_versions = Table(
    "plan_versions",
    metadata,
    Column("version", Text, primary_key=True, info=CUSTOMER_NAME),  # standard@3, standard@3+acme
    Column("settings", ImpersonalText, nullable=False),  # JSON, as in plans.yaml.
    Column("created_at", INTEGER, nullable=False),
    info=of_customers(
        None,
        BOOKS,
        rights=READ,
        condition=f"split_part(version, '+', 2) IN ('', {SERVED_NAME})",
        copies="backups; a price of one customer is `PLAN@N+NAME`",
        not_exported="plans of all; this one's is in `subscriptions`",
    ),
    sqlite_strict=True,
)

# Scheduled price changes.
price_changes = Table(
    "price_changes",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("at", INTEGER, nullable=False),
    Column("state", ImpersonalText, nullable=False),  # scheduled, done or withdrawn.
    Column("why", Text, nullable=False, info=REASON),
    Column("created_at", INTEGER, nullable=False),
    Column("created_by", Text, nullable=False, info=OPERATOR),
    Column("decided_at", INTEGER),  # When it was done or withdrawn.
    Index("price_changes_state", "state", "at"),
    info=closed("who has changed prices, and why", BOOKS),
    sqlite_strict=True,
)

# The version that a price change moves the subscribers of a plan to, at the first period that begins at or after `at`.
price_moves = Table(
    "price_moves",
    metadata,
    Column("change", ImpersonalText, ForeignKey("price_changes.id"), primary_key=True),
    Column("plan", Text, primary_key=True, info=CUSTOMER_NAME),  # standard, or standard+acme for one customer's price.
    # The version sold until then.
    Column("before", Text, ForeignKey("plan_versions.version"), nullable=False, info=CUSTOMER_NAME),
    Column("after", Text, ForeignKey("plan_versions.version"), nullable=False, info=CUSTOMER_NAME),
    Column("at", INTEGER, nullable=False),
    Column("withdrawn", INTEGER, nullable=False, server_default="0"),
    info=of_customers(
        None,
        BOOKS,
        rights=READ,
        condition=f"split_part(after, '+', 2) IN ('', {SERVED_NAME})",
        not_exported="plans of all; this one's is in `subscriptions`",
    ),
    sqlite_strict=True,
)
_IN_FORCE = text("withdrawn = 0")
Index("price_moves_after", price_moves.c.after, unique=True, sqlite_where=_IN_FORCE, postgresql_where=_IN_FORCE)
Index(
    "price_moves_plan_at",
    price_moves.c.plan,
    price_moves.c.at,
    unique=True,
    sqlite_where=_IN_FORCE,
    postgresql_where=_IN_FORCE,
)

# A customer's account at Stripe.
billing_customers = Table(
    "billing_customers",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("stripe_id", Text, nullable=False, info=STRIPE_ID),
    Column("email_hash", Text, info=mark(EMAIL, is_cleared=True, in_clear="a hash")),
    Column("email_changed_at", INTEGER),  # Milliseconds; None once Stripe has the current address.
    Column(
        "country",
        Text,
        info=personal("country of a customer", Subject.CUSTOMER, "tax", in_clear="invoices are made by it"),
    ),
    Column("tax_status", ImpersonalText),
    Column("livemode", INTEGER, nullable=False),
    Column("deleted_at", INTEGER),  # When it was deleted at Stripe, by hand or after an erasure; milliseconds.
    Column("deletion_tried_at", INTEGER),  # The last check whether deletion is possible.
    Column("deletion_waits_for", ImpersonalText),  # Why deletion was not possible then.
    UniqueConstraint("stripe_id", name="billing_customers_stripe_id_key"),
    info=of_customers(ID, BOOKS, CLEARS, rights=ADD, copies="backups; Stripe"),
    sqlite_strict=True,
)

# Stripe's last known payment method and billing details of a customer, each as JSON.
billing_details = Table(
    "billing_details",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    # Name, e-mail address, address and tax numbers.
    Column(
        "payer",
        Text,
        nullable=False,
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
    Column("read_at", INTEGER, nullable=False),  # When Stripe returned them, in milliseconds; 0: read again.
    info=of_customers(ID, DELETION, DELETES, rights=ALL, copies="backups; Stripe, whose copy this is"),
    sqlite_strict=True,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7, like all ids here.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    # The current version.
    Column("plan_version", Text, ForeignKey("plan_versions.version"), nullable=False, info=CUSTOMER_NAME),
    Column("is_yearly", INTEGER, nullable=False),  # 1: the fee is paid yearly in advance.
    # The states are in collector/billing/subscriptions/subscription_rows.py.
    Column("state", ImpersonalText, nullable=False),
    Column("anchor", INTEGER),  # Where months begin; None: on the 1st.
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    # The plan version after the paid period.
    Column("next_version", Text, ForeignKey("plan_versions.version"), info=CUSTOMER_NAME),
    Column("quantity", INTEGER, nullable=False, server_default="1"),  # The number of units of the plan.
    Column("next_quantity", INTEGER),  # The quantity after the paid period; None: no change.
    Column("next_is_yearly", INTEGER),  # 1: paid yearly after the paid period; None: no change.
    Column("cancel_at", INTEGER),  # When it ends or ended.
    Column("trial_ends_at", INTEGER),  # When its trial ends or ended.
    Column("tier_before", ImpersonalText, nullable=False),  # The customer's tier without the subscription.
    Column("stripe_id", Text, info=STRIPE_ID),  # Only with `collection: meters`.
    # The version whose prices Stripe's subscription has; None if it has ended.
    Column("told_version", Text, info=CUSTOMER_NAME),
    Column("created_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),  # Grows with each change: the ETag.
    UniqueConstraint("stripe_id", name="subscriptions_stripe_id_key"),
    info=of_customers(ID, BOOKS, rights=CHANGE, copies="backups; Stripe"),
    sqlite_strict=True,
)
_LIVE = text(f"state <> '{CANCELED}'")
Index("subscriptions_live", subscriptions.c.customer, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
Index("subscriptions_period_end", subscriptions.c.period_end, sqlite_where=_LIVE, postgresql_where=_LIVE)

# The customer's reason for canceling, if given. The row is deleted if the customer resumes the plan.
cancellations = Table(
    "cancellations",
    metadata,
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id"), primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
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
    Column("created_at", INTEGER, nullable=False),
    Index("cancellations_customer", "customer"),
    Index("cancellations_created_at", "created_at"),
    info=of_customers(
        ID,
        f"for good, as reasons are counted; the comment {DELETION}",
        CLEARS,
        rights=ALL,
        copies="backups; Stripe, with plans that are collected by its meters",
    ),
    sqlite_strict=True,
)

# The parts of a period with one plan version. The fee has its own row, with an empty meter.
segments = Table(
    "segments",
    metadata,
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id"), primary_key=True),
    Column("meter", ImpersonalText, primary_key=True),
    Column("start", INTEGER, primary_key=True, autoincrement=False),
    Column("end", INTEGER, nullable=False),
    Column("plan_version", Text, ForeignKey("plan_versions.version"), nullable=False, info=CUSTOMER_NAME),
    Column("is_yearly", INTEGER, nullable=False),
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    Column("paid_start", INTEGER, nullable=False),  # The time that the fee covers: the period or the year.
    Column("paid_end", INTEGER, nullable=False),
    Column("stripe_item", ImpersonalText),
    Column("stripe_price", ImpersonalText),
    # How its usage is collected, as configured when the segment began.
    Column("collection", ImpersonalText, nullable=False, server_default="invoice_items"),
    Column("is_resting", INTEGER, nullable=False, server_default="0"),  # 1: its fee is paused.
    Column("quantity", INTEGER, nullable=False, server_default="1"),  # The number of units of the plan.
    Column("told_from", INTEGER),  # Stripe counts its events from here; None: Stripe gets none.
    Column("told_until", INTEGER),  # When Stripe's count became final; None: it may still grow.
    info=of_customers(Owner("subscription", "subscriptions"), BOOKS, rights=CHANGE, copies="backups; Stripe"),
    sqlite_strict=True,
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id")),
    Column("period", ImpersonalText, nullable=False),  # The first day of the period: 2027-01-01.
    Column("kind", ImpersonalText, nullable=False),  # start, change or period.
    Column("state", ImpersonalText, nullable=False),  # The states are in collector/billing/invoices/invoices.py.
    Column("stripe_id", BookText("invoices.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    # Comma-separated.
    Column(
        "replaced_ids",
        BookText("invoices.replaced_ids"),
        nullable=False,
        server_default="",
        info=mark(STRIPE_ID, is_ended=True),
    ),
    Column("subtotal", INTEGER, nullable=False),  # Cents, without tax.
    Column("total", INTEGER, nullable=False),
    Column("amount_due", INTEGER, nullable=False, server_default="0"),  # Unpaid amount according to Stripe.
    Column("amount_paid", INTEGER, nullable=False, server_default="0"),
    Column("paid_off_stripe", INTEGER, nullable=False, server_default="0"),  # The part paid outside Stripe.
    Column("balance_applied", INTEGER, nullable=False, server_default="0"),  # Taken from the customer's balance.
    Column("currency", ImpersonalText, nullable=False),
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    Column("closes_at", INTEGER, nullable=False),  # Usage may change it until then.
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
    Column("tries", INTEGER, nullable=False),  # Idempotency-Keys used up by permanent failures.
    Column("failures", INTEGER, nullable=False),  # Failed calls to Stripe; each failure lengthens the delay.
    Column("try_at", INTEGER, nullable=False),  # When it is processed next.
    Column("error", BookText("invoices.error"), info=mark(FAILURE, is_ended=True)),
    Column("created_at", INTEGER, nullable=False),
    Column("booked", ImpersonalText, nullable=False, server_default=""),  # The last state in the journal.
    UniqueConstraint("customer", "period", "kind", name="invoices_customer_period_kind_key"),
    UniqueConstraint("stripe_id", name="invoices_stripe_id_key"),
    Index("invoices_state", "state", "closes_at"),
    Index("invoices_state_id", "state", "id"),
    Index("invoices_number", "number"),
    Index("invoices_unbooked", "id", sqlite_where=text(UNBOOKED_INVOICES), postgresql_where=text(UNBOOKED_INVOICES)),
    info=of_customers(ID, BOOKS, rights=CHANGE, copies="backups; Stripe"),
    sqlite_strict=True,
)

# The parties of an invoice as Stripe printed them: JSON.
invoice_parties = Table(
    "invoice_parties",
    metadata,
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    # Name, address and tax numbers of the customer, and name of the seller.
    Column(
        "parties",
        Text,
        nullable=False,
        info=personal("name, address and tax numbers on an invoice", Subject.CUSTOMER, "invoicing", is_sealed=True),
    ),
    Index("invoice_parties_customer", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ALL, copies="backups; Stripe, whose copy this is"),
    sqlite_strict=True,
)

# Invoice lines as our rating computed them. They are written when an invoice is closed and never change.
invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    Column("kind", ImpersonalText, nullable=False),  # fee, proration, usage or late.
    Column("plan_version", Text, nullable=False, info=CUSTOMER_NAME),
    Column("segment_start", INTEGER, nullable=False),
    Column("segment_end", INTEGER, nullable=False),
    Column("meter", ImpersonalText, nullable=False),
    # Value of the dimension that the price depends on.
    Column("value", Text, nullable=False, info=mark(DIMENSION, is_ended=True)),
    Column("tier", INTEGER, nullable=False),
    Column("quantity", INTEGER, nullable=False),
    Column("package", INTEGER, nullable=False, server_default="1"),  # Units per `quantity`.
    Column("unit_price", ImpersonalText),  # Cents, a decimal; None for fees.
    Column("amount", INTEGER, nullable=False),
    Column("start", INTEGER, nullable=False),
    Column("end", INTEGER, nullable=False),
    Column("text", Text, nullable=False, info=mark(DIMENSION, is_ended=True)),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=ADD, copies="backups; Stripe"),
    sqlite_strict=True,
)

# Credit notes: amounts taken off an open or paid invoice.
credit_notes = Table(
    "credit_notes",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), nullable=False),
    Column("amount", INTEGER, nullable=False),
    Column("refunded", INTEGER, nullable=False, server_default="0"),  # The part of the amount paid back.
    # The rest of a paid invoice's amount: credited to the customer's balance, or repaid outside Stripe.
    Column("to_balance", INTEGER, nullable=False, server_default="0"),
    Column("off_stripe", INTEGER, nullable=False, server_default="0"),
    Column("why", BookText("credit_notes.why"), nullable=False, info=mark(REASON, is_ended=True)),
    Column("state", ImpersonalText, nullable=False),  # requested, made or refused.
    Column("stripe_id", BookText("credit_notes.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    Column("error", BookText("credit_notes.error"), info=mark(FAILURE, is_ended=True)),
    Column("tries", INTEGER, nullable=False),
    Column("failures", INTEGER, nullable=False, server_default="0"),  # Failed calls.
    Column("try_at", INTEGER, nullable=False, server_default="0"),  # The Unix second of the next try.
    Column("created_at", INTEGER, nullable=False),
    Column("booked", ImpersonalText, nullable=False, server_default=""),  # The last state in the journal.
    UniqueConstraint("stripe_id", name="credit_notes_stripe_id_key"),
    Index("credit_notes_invoice", "invoice"),
    Index(
        "credit_notes_unbooked",
        "id",
        sqlite_where=text(UNBOOKED_CREDIT_NOTES),
        postgresql_where=text(UNBOOKED_CREDIT_NOTES),
    ),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=READ, copies="backups; Stripe"),
    sqlite_strict=True,
)

# Payments that a bank has reversed or questions.
disputes = Table(
    "disputes",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("invoice", ImpersonalText, ForeignKey("invoices.id")),  # The paid invoice; NULL for a purchase of credits.
    Column("purchase", ImpersonalText, ForeignKey("credit_grants.id")),  # The paid grant.
    Column("state", ImpersonalText, nullable=False),  # The states are in collector/billing/invoices/disputes.py.
    Column("amount", INTEGER, nullable=False),
    Column("currency", ImpersonalText, nullable=False),
    Column("reason", ImpersonalText, nullable=False),  # A reason code of Stripe.
    Column("answer_by", INTEGER),  # The last second for a response; NULL if none is possible.
    Column("taken_off", INTEGER, nullable=False, server_default="0"),  # The lost part of the invoice.
    Column("booked", INTEGER, nullable=False, server_default="0"),  # The part of `taken_off` in the journal.
    Column("stripe_id", BookText("disputes.stripe_id", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)),
    Column("created_at", INTEGER, nullable=False),
    Column("closed_at", INTEGER),
    UniqueConstraint("stripe_id", name="disputes_stripe_id_key"),
    Index("disputes_invoice", "invoice"),
    Index("disputes_state", "state", "answer_by"),
    Index("disputes_unbooked", "id", sqlite_where=text(UNBOOKED_DISPUTES), postgresql_where=text(UNBOOKED_DISPUTES)),
    info=of_customers(ID, BOOKS, rights=READ, copies="backups; Stripe"),
    sqlite_strict=True,
)

# Invoices with a declined payment, and the time of the next attempt.
dunning = Table(
    "dunning",
    metadata,
    Column("invoice", ImpersonalText, ForeignKey("invoices.id"), primary_key=True),
    Column("state", ImpersonalText, nullable=False),  # The states are in collector/billing/invoices/dunning.py.
    Column("declines", INTEGER, nullable=False),
    Column("declined_at", INTEGER, nullable=False),  # The first decline; the schedule starts here.
    Column("retry_at", INTEGER),  # None: it waits for another payment method.
    # The last declined one.
    Column(
        "payment_method", BookText("dunning.payment_method", is_looked_up=True), info=mark(STRIPE_ID, is_ended=True)
    ),
    Column("why", BookText("dunning.why"), nullable=False, info=mark(FAILURE, is_ended=True)),
    Index("dunning_retry_at", "state", "retry_at"),
    info=of_customers(Owner("invoice", "invoices"), BOOKS, rights=READ),
    sqlite_strict=True,
)

# The number of redemptions of each coupon.
coupons = Table(
    "coupons",
    metadata,
    Column("code", ImpersonalText, primary_key=True),
    Column("redemptions", INTEGER, nullable=False),
    info=closed("how often coupons were redeemed; used with the rights of the collector", BOOKS),
    sqlite_strict=True,
)

# Coupons that customers redeemed, with the discount at that time. Later changes of collector.yaml do not apply.
coupon_redemptions = Table(
    "coupon_redemptions",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("code", ImpersonalText, primary_key=True),
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id"), nullable=False),
    Column("share", INTEGER),  # The discount in units of 10⁻¹² of each cent; None: it is an amount.
    Column("amount_off", INTEGER),  # Cents per period.
    Column("plans", ImpersonalText, nullable=False),  # Names of the discounted plans, separated by commas; empty: all.
    Column("starts", INTEGER, nullable=False),  # The beginning of its first period.
    Column("until", INTEGER),  # The beginning of the first period without it; None: unlimited.
    Column("created_at", INTEGER, nullable=False),
    Index("coupon_redemptions_subscription", "subscription"),
    info=of_customers(ID, BOOKS, rights=ADD),
    sqlite_strict=True,
)

# Subscriptions of an existing Stripe account. Ours begins when the time paid there ends.
imported_subscriptions = Table(
    "imported_subscriptions",
    metadata,
    Column("stripe_id", Text, primary_key=True, info=STRIPE_ID),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("plan_version", Text, nullable=False, info=CUSTOMER_NAME),
    Column("is_yearly", INTEGER, nullable=False),
    Column("anchor", INTEGER, nullable=False),  # Where months begin, unless that is the 1st.
    Column("begins_at", INTEGER, nullable=False),
    # The states are in collector/billing/subscriptions/imported_rows.py.
    Column("state", ImpersonalText, nullable=False),
    Column("why", ImpersonalText),  # Why it was dropped.
    Column("subscription", ImpersonalText, ForeignKey("subscriptions.id")),  # The subscription that replaced it.
    Column("created_at", INTEGER, nullable=False),
    info=of_customers(ID, BOOKS, rights=READ),
    sqlite_strict=True,
)
_WAITING = text("state = 'waiting'")
Index(
    "imported_subscriptions_waiting",
    imported_subscriptions.c.customer,
    unique=True,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)
Index(
    "imported_subscriptions_begins_at",
    imported_subscriptions.c.begins_at,
    sqlite_where=_WAITING,
    postgresql_where=_WAITING,
)

# Amounts that trigger an alert when the costs of a customer's period reach them.
spend_alerts = Table(
    "spend_alerts",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_ID),  # The id.
    Column("amount", INTEGER, primary_key=True, autoincrement=False),  # Cents.
    info=of_customers(ID, DELETION, DELETES, rights=ALL),
    sqlite_strict=True,
)
