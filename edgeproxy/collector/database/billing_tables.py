"""The tables of what is sold, to whom, and what was invoiced for it. Amounts are whole cents.

Customers are known here by id, as their names go when they are deleted, and invoices stay. Times are Unix seconds,
those of changes Unix milliseconds.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint, text

from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.schema import INTEGER, metadata

CANCELED = "canceled"
"""The state of a subscription that is over."""
UNBOOKED_INVOICES = "invoices.booked <> invoices.state AND invoices.state IN ('open', 'paid', 'uncollectible', 'void')"
UNBOOKED_CREDIT_NOTES = "credit_notes.booked <> credit_notes.state AND credit_notes.state IN ('made', 'void')"
UNBOOKED_DISPUTES = "disputes.booked <> disputes.taken_off"
"""The conditions for what is not in the journal as it is by now. Indexes have such rows alone, and help queries that
say it in the same words.
"""

# Versions of plans as they were sold: what an invoice is rated by, whatever plans.yaml says by now.
plan_versions = Table(
    "plan_versions",
    metadata,
    Column("version", Text, primary_key=True),  # standard@3, standard@3+acme
    Column("settings", Text, nullable=False),  # JSON, as in plans.yaml.
    Column("created_at", INTEGER, nullable=False),
    sqlite_strict=True,
)

# Changes of prices that people have scheduled.
price_changes = Table(
    "price_changes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", INTEGER, nullable=False),
    Column("state", Text, nullable=False),  # scheduled, done or withdrawn.
    Column("why", Text, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("decided_at", INTEGER),  # When it was done or withdrawn.
    Index("price_changes_state", "state", "at"),
    sqlite_strict=True,
)

# The versions to which subscribers of a plan move by them, with the period that begins at `at` or next after it.
price_moves = Table(
    "price_moves",
    metadata,
    Column("change", Text, ForeignKey("price_changes.id"), primary_key=True),
    Column("plan", Text, primary_key=True),  # standard, or standard+acme: one customer's price.
    Column("before", Text, ForeignKey("plan_versions.version"), nullable=False),  # What is sold until then.
    Column("after", Text, ForeignKey("plan_versions.version"), nullable=False),
    Column("at", INTEGER, nullable=False),
    Column("withdrawn", INTEGER, nullable=False, server_default="0"),
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

# Who a customer is at Stripe.
billing_customers = Table(
    "billing_customers",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("stripe_id", Text, nullable=False),
    Column("email_hash", Text),
    Column("email_changed_at", INTEGER),  # Milliseconds; until Stripe has the address that contacts now say.
    Column("country", Text),
    Column("tax_status", Text),
    Column("livemode", INTEGER, nullable=False),
    Column("deleted_at", INTEGER),  # When it was deleted at Stripe, by hand or after an erasure; milliseconds.
    Column("deletion_tried_at", INTEGER),  # The last look at whether it may be.
    Column("deletion_waits_for", Text),  # Why it was not then.
    UniqueConstraint("stripe_id", name="billing_customers_stripe_id_key"),
    sqlite_strict=True,
)

# What Stripe has said last of how a customer pays, and of what is on its invoices: JSON, each.
billing_details = Table(
    "billing_details",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("payer", Text, nullable=False),  # Name, e-mail address, address and tax numbers.
    Column("payment_method", Text),  # Brand, last digits and expiry; None: there is none.
    Column("read_at", INTEGER, nullable=False),  # When Stripe said so, in milliseconds; 0: it is to be asked anew.
    sqlite_strict=True,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7, as all ids here.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("plan_version", Text, ForeignKey("plan_versions.version"), nullable=False),  # In force now.
    Column("is_yearly", INTEGER, nullable=False),  # Whether the fee is paid for a year in advance.
    Column("state", Text, nullable=False),  # collector/billing/subscriptions/subscription_rows.py has them.
    Column("anchor", INTEGER),  # From when on months are counted; None: from the 1st.
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    Column("next_version", Text, ForeignKey("plan_versions.version")),  # What it changes to when what is paid ends.
    Column("quantity", INTEGER, nullable=False, server_default="1"),  # How many of the plan there are.
    Column("next_quantity", INTEGER),  # How many there are from then on; None: as before.
    Column("next_is_yearly", INTEGER),  # Whether it is paid by the year from then on; None: as before.
    Column("cancel_at", INTEGER),  # When it ends, or ended.
    Column("trial_ends_at", INTEGER),  # When its trial ends, or ended.
    Column("tier_before", Text, nullable=False),  # The customer's tier without it.
    Column("stripe_id", Text),  # Under `collection: meters`.
    Column("told_version", Text),  # Whose prices Stripe's subscription has; None where there is none any more.
    Column("created_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),  # Grows with each change: the ETag.
    UniqueConstraint("stripe_id", name="subscriptions_stripe_id_key"),
    sqlite_strict=True,
)
_LIVE = text(f"state <> '{CANCELED}'")
Index("subscriptions_live", subscriptions.c.customer, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)
Index("subscriptions_period_end", subscriptions.c.period_end, sqlite_where=_LIVE, postgresql_where=_LIVE)

# Why a customer ends its plan, where it says so; gone again where the plan goes on.
cancellations = Table(
    "cancellations",
    metadata,
    Column("subscription", Text, ForeignKey("subscriptions.id"), primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("reason", Text),  # collector/billing/subscriptions/cancellations.py has them.
    Column("comment", Text),
    Column("created_at", INTEGER, nullable=False),
    Index("cancellations_customer", "customer"),
    Index("cancellations_created_at", "created_at"),
    sqlite_strict=True,
)

# The parts of a period in which a version was in force: a row for the fee, whose meter is empty.
segments = Table(
    "segments",
    metadata,
    Column("subscription", Text, ForeignKey("subscriptions.id"), primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("start", INTEGER, primary_key=True, autoincrement=False),
    Column("end", INTEGER, nullable=False),
    Column("plan_version", Text, ForeignKey("plan_versions.version"), nullable=False),
    Column("is_yearly", INTEGER, nullable=False),
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    Column("paid_start", INTEGER, nullable=False),  # What its fee is for: the period, or the year.
    Column("paid_end", INTEGER, nullable=False),
    Column("stripe_item", Text),
    Column("stripe_price", Text),
    # How usage of it is collected: as it was configured when it began.
    Column("collection", Text, nullable=False, server_default="invoice_items"),
    Column("is_resting", INTEGER, nullable=False, server_default="0"),  # Whether its fee rests.
    Column("quantity", INTEGER, nullable=False, server_default="1"),  # How many of the plan there are.
    Column("told_from", INTEGER),  # From when on Stripe counts events for it; None: it is told of none.
    Column("told_until", INTEGER),  # When what Stripe has counted for it became final; None: it may still grow.
    sqlite_strict=True,
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("subscription", Text, ForeignKey("subscriptions.id")),
    Column("period", Text, nullable=False),  # The day on which the period begins: 2027-01-01.
    Column("kind", Text, nullable=False),  # start, change or period.
    Column("state", Text, nullable=False),  # collector/billing/invoices/invoices.py has them.
    Column("stripe_id", BookText("invoices.stripe_id", is_looked_up=True)),
    Column("replaced_ids", BookText("invoices.replaced_ids"), nullable=False, server_default=""),  # Commas between.
    Column("subtotal", INTEGER, nullable=False),  # Cents, without tax.
    Column("total", INTEGER, nullable=False),
    Column("amount_due", INTEGER, nullable=False, server_default="0"),  # Still to be paid, by Stripe's account.
    Column("amount_paid", INTEGER, nullable=False, server_default="0"),
    Column("paid_off_stripe", INTEGER, nullable=False, server_default="0"),  # Of what was paid, what came elsewhere.
    Column("balance_applied", INTEGER, nullable=False, server_default="0"),  # Taken from the customer's balance.
    Column("currency", Text, nullable=False),
    Column("period_start", INTEGER, nullable=False),
    Column("period_end", INTEGER, nullable=False),
    Column("closes_at", INTEGER, nullable=False),  # Until then usage may change it.
    Column("held_why", BookText("invoices.held_why")),
    Column("voided_why", BookText("invoices.voided_why")),
    Column("accepted_why", BookText("invoices.accepted_why")),  # Of one that was held, and is sent all the same.
    Column("pdf", BookText("invoices.pdf")),
    Column("url", BookText("invoices.url")),  # Where the customer looks at it and pays.
    Column("number", BookText("invoices.number")),  # As Stripe prints it; None until it is finalized there.
    Column("issued_at", INTEGER),  # When it was finalized at Stripe.
    Column("due_at", INTEGER),  # One that is charged by itself is due when it is issued.
    Column("paid_at", INTEGER),
    Column("tries", INTEGER, nullable=False),  # Idempotency-Keys that are answered by a failure for good.
    Column("failures", INTEGER, nullable=False),  # Calls of Stripe that failed: each puts it off for longer.
    Column("try_at", INTEGER, nullable=False),  # When it is taken up.
    Column("error", BookText("invoices.error")),
    Column("created_at", INTEGER, nullable=False),
    Column("booked", Text, nullable=False, server_default=""),  # The last state that is in the journal.
    UniqueConstraint("customer", "period", "kind", name="invoices_customer_period_kind_key"),
    UniqueConstraint("stripe_id", name="invoices_stripe_id_key"),
    Index("invoices_state", "state", "closes_at"),
    Index("invoices_state_id", "state", "id"),
    Index("invoices_unbooked", "id", sqlite_where=text(UNBOOKED_INVOICES), postgresql_where=text(UNBOOKED_INVOICES)),
    sqlite_strict=True,
)

# Who is on an invoice, as Stripe has printed it: JSON.
invoice_parties = Table(
    "invoice_parties",
    metadata,
    Column("invoice", Text, ForeignKey("invoices.id"), primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("parties", Text, nullable=False),  # Name, address and tax numbers of the customer, name of the seller.
    Index("invoice_parties_customer", "customer"),
    sqlite_strict=True,
)

# What our rater came to, written when an invoice is closed and never changed.
invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice", Text, ForeignKey("invoices.id"), primary_key=True),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),  # fee, proration, usage or late.
    Column("plan_version", Text, nullable=False),
    Column("segment_start", INTEGER, nullable=False),
    Column("segment_end", INTEGER, nullable=False),
    Column("meter", Text, nullable=False),
    Column("value", Text, nullable=False),  # Of the dimension that the price is by.
    Column("tier", INTEGER, nullable=False),
    Column("quantity", INTEGER, nullable=False),
    Column("package", INTEGER, nullable=False, server_default="1"),  # Units that each of `quantity` stands for.
    Column("unit_price", Text),  # Cents, a decimal; None of fees.
    Column("amount", INTEGER, nullable=False),
    Column("start", INTEGER, nullable=False),
    Column("end", INTEGER, nullable=False),
    Column("text", Text, nullable=False),
    sqlite_strict=True,
)

# What was taken back of an invoice that is open or paid.
credit_notes = Table(
    "credit_notes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("invoice", Text, ForeignKey("invoices.id"), nullable=False),
    Column("amount", INTEGER, nullable=False),
    Column("refunded", INTEGER, nullable=False, server_default="0"),  # Of the amount, what was paid back.
    # Of a paid invoice's amount, what is no refund: credited to the customer's balance, or given back elsewhere.
    Column("to_balance", INTEGER, nullable=False, server_default="0"),
    Column("off_stripe", INTEGER, nullable=False, server_default="0"),
    Column("why", BookText("credit_notes.why"), nullable=False),
    Column("state", Text, nullable=False),  # requested, made or refused.
    Column("stripe_id", BookText("credit_notes.stripe_id", is_looked_up=True)),
    Column("error", BookText("credit_notes.error")),
    Column("tries", INTEGER, nullable=False),
    Column("failures", INTEGER, nullable=False, server_default="0"),  # Calls that failed.
    Column("try_at", INTEGER, nullable=False, server_default="0"),  # The Unix second of the next try.
    Column("created_at", INTEGER, nullable=False),
    Column("booked", Text, nullable=False, server_default=""),  # The last state that is in the journal.
    UniqueConstraint("stripe_id", name="credit_notes_stripe_id_key"),
    Index("credit_notes_invoice", "invoice"),
    Index(
        "credit_notes_unbooked",
        "id",
        sqlite_where=text(UNBOOKED_CREDIT_NOTES),
        postgresql_where=text(UNBOOKED_CREDIT_NOTES),
    ),
    sqlite_strict=True,
)

# Payments that a bank has taken back, or asks about.
disputes = Table(
    "disputes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("invoice", Text, ForeignKey("invoices.id")),  # The invoice that was paid; NULL of a purchase of credits.
    Column("purchase", Text, ForeignKey("credit_grants.id")),  # The grant that was paid.
    Column("state", Text, nullable=False),  # collector/billing/invoices/disputes.py has them.
    Column("amount", INTEGER, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),  # One of the words of Stripe.
    Column("answer_by", INTEGER),  # The last second for an answer; NULL if none is possible.
    Column("taken_off", INTEGER, nullable=False, server_default="0"),  # The part of the invoice that is lost.
    Column("booked", INTEGER, nullable=False, server_default="0"),  # The part of that in the journal.
    Column("stripe_id", BookText("disputes.stripe_id", is_looked_up=True)),
    Column("created_at", INTEGER, nullable=False),
    Column("closed_at", INTEGER),
    UniqueConstraint("stripe_id", name="disputes_stripe_id_key"),
    Index("disputes_invoice", "invoice"),
    Index("disputes_state", "state", "answer_by"),
    Index("disputes_unbooked", "id", sqlite_where=text(UNBOOKED_DISPUTES), postgresql_where=text(UNBOOKED_DISPUTES)),
    sqlite_strict=True,
)

# Invoices whose payment was declined, and when it is tried again.
dunning = Table(
    "dunning",
    metadata,
    Column("invoice", Text, ForeignKey("invoices.id"), primary_key=True),
    Column("state", Text, nullable=False),  # collector/billing/invoices/dunning.py has them.
    Column("declines", INTEGER, nullable=False),
    Column("declined_at", INTEGER, nullable=False),  # The first time: the schedule counts from it.
    Column("retry_at", INTEGER),  # None: it waits for another payment method.
    Column("payment_method", BookText("dunning.payment_method", is_looked_up=True)),  # The one that was declined last.
    Column("why", BookText("dunning.why"), nullable=False),
    Index("dunning_retry_at", "state", "retry_at"),
    sqlite_strict=True,
)

# How often each coupon was redeemed.
coupons = Table(
    "coupons",
    metadata,
    Column("code", Text, primary_key=True),
    Column("redemptions", INTEGER, nullable=False),
    sqlite_strict=True,
)

# Who has redeemed a coupon, and what it takes off: as it was then, whatever collector.yaml says by now.
coupon_redemptions = Table(
    "coupon_redemptions",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("code", Text, primary_key=True),
    Column("subscription", Text, ForeignKey("subscriptions.id"), nullable=False),
    Column("share", INTEGER),  # 10⁻¹² of each cent; None: it takes off an amount.
    Column("amount_off", INTEGER),  # Cents of a period.
    Column("plans", Text, nullable=False),  # Names of the plans that it is for, with commas between; empty: all.
    Column("starts", INTEGER, nullable=False),  # The beginning of its first period.
    Column("until", INTEGER),  # The beginning of the first period without it; None: it goes on.
    Column("created_at", INTEGER, nullable=False),
    Index("coupon_redemptions_subscription", "subscription"),
    sqlite_strict=True,
)

# Subscriptions of an existing Stripe account: ours begins when what was paid there ends.
imported_subscriptions = Table(
    "imported_subscriptions",
    metadata,
    Column("stripe_id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("plan_version", Text, nullable=False),
    Column("is_yearly", INTEGER, nullable=False),
    Column("anchor", INTEGER, nullable=False),  # From when on months are counted, unless that is the 1st.
    Column("begins_at", INTEGER, nullable=False),
    Column("state", Text, nullable=False),  # collector/billing/subscriptions/imported_rows.py has them.
    Column("why", Text),  # Of one that was dropped.
    Column("subscription", Text, ForeignKey("subscriptions.id")),  # The one that has begun.
    Column("created_at", INTEGER, nullable=False),
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

# Amounts at which a customer has an alert once its period has cost as much.
spend_alerts = Table(
    "spend_alerts",
    metadata,
    Column("customer", Text, primary_key=True),  # The id.
    Column("amount", INTEGER, primary_key=True, autoincrement=False),  # Cents.
    sqlite_strict=True,
)
