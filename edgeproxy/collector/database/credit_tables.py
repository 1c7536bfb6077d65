"""The tables of prepaid credits: a journal of double entries, and the state computed from it.

Amounts are millicredits. In transactions of other currencies than US dollars they are ten-thousandths of the smallest
unit of the currency.

Rows of `credit_transactions` and `credit_entries` are only ever added (collector/billing/journal/journal.py). Details
of the oldest rows are cleared (collector/billing/journal/cleared_details.py). Times are Unix ms.
"""

from sqlalchemy import Column, ForeignKey, Index, Text, UniqueConstraint

from edgeproxy.collector.database.book_text import JournalText
from edgeproxy.collector.database.marks import (
    BOOKS,
    CHANGE,
    CUSTOMER_ID,
    DELETES,
    DELETION,
    DIMENSION,
    ID,
    ONE,
    READ,
    STRIPE_ID,
    ImpersonalText,
    Owner,
    Subject,
    of_customers,
    personal,
    shared,
)
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

DETAILS = "credit_transactions.details"
"""The column name that is bound into encrypted details."""

# Transactions, each recorded once: `source` identifies the cause, for example the id of a checkout session.
credit_transactions = strict_table(
    "credit_transactions",
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    required("at", INTEGER),  # When it was booked; never earlier than the previous one.
    # None: it concerns no customer, for example a payout.
    Column("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("kind", ImpersonalText),
    required("source", Text, info=STRIPE_ID),
    required("original", ImpersonalText),  # The reversed transaction, or the grant concerned; else empty.
    # For a consumption: the Unix second when its hour begins. For a balance transaction: the second of its creation.
    required("slice", INTEGER),
    required("amount", INTEGER),  # The change of the credit balance.
    # JSON.
    required(
        "details",
        JournalText(DETAILS),
        info=personal(
            "ids at Stripe, and reasons of operators",
            Subject.CUSTOMER,
            "book-keeping",
            is_ended=True,
            encryption="encrypted, by the key of its year; fees, and what was booked in the clear, are not",
            operator_fields=frozenset({"by", "why"}),
        ),
    ),
    required("currency", ImpersonalText, server_default="usd"),  # The currency of all its entries.
    required("hash", ImpersonalText),  # Hash over this row, its entries and the previous row's hash.
    UniqueConstraint("kind", "source", name="credit_transactions_source_key"),
    Index("credit_transactions_customer", "customer", "at"),
    Index("credit_transactions_at", "at"),
    Index("credit_transactions_slice", "kind", "slice", "customer"),
    Index("credit_transactions_original", "original", "kind"),
    info=of_customers(ID, BOOKS, rights=READ),
)
credit_entries = strict_table(
    "credit_entries",
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    required("account", ImpersonalText),
    required("amount", INTEGER),  # A debit is positive, a credit negative.
    required("grant_id", ImpersonalText),  # For deferred revenue; else empty.
    required("meter", ImpersonalText),
    required("model", Text, info=DIMENSION),
    Index("credit_entries_grant", "grant_id"),
    info=of_customers(Owner("seq", "credit_transactions", "seq"), BOOKS, rights=READ),
    sqlite_with_rowid=False,
)
# One row: the last transaction, and the end of the booked usage. Every booking locks this row.
credit_head = strict_table(
    "credit_head",
    required("seq", INTEGER),
    required("hash", ImpersonalText),
    required("at", INTEGER),
    required("slice", INTEGER),  # Usage from this Unix second on is not booked yet; 0: none is.
    # The last transaction with cleared details, and the hash of the rows up to it after clearing.
    required("cleared_seq", INTEGER, server_default="0"),
    required("cleared_hash", ImpersonalText, server_default="0" * 64),
    info=shared("how far usage is booked: the end of the journal of credits", ONE),
)

# State computed from the entries: the rest of each grant, and each customer's balance.
credit_grants = strict_table(
    "credit_grants",
    Column("id", ImpersonalText, primary_key=True),
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("number", INTEGER),  # The number of the transaction that created it.
    required("rest", INTEGER),
    Column("expires_at", INTEGER),
    required("paid", INTEGER),
    required("tax", INTEGER),
    required("returned", INTEGER),  # The part of `paid` that was refunded.
    Column("payment", Text, info=STRIPE_ID),  # The payment intent of a purchase.
    UniqueConstraint("payment", name="credit_grants_payment_key"),
    Index("credit_grants_customer", "customer"),
    Index("credit_grants_expires_at", "expires_at"),
    info=of_customers(ID, BOOKS, rights=READ),
)
credit_balances = strict_table(
    "credit_balances",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    required("balance", INTEGER),
    required("overdraft", INTEGER),
    required("since", INTEGER),  # The Unix second of the hour since which credits pay for usage.
    # The total ever available: the balance plus all consumption.
    required("granted", INTEGER, server_default="0"),
    info=of_customers(ID, BOOKS, rights=READ),
)
# Automatic top-up: one row for each customer that ever turned it on, with its pending purchase.
credit_top_ups = strict_table(
    "credit_top_ups",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    required("state", ImpersonalText),  # on, off, declined.
    required("below", INTEGER),  # A purchase begins when less than this is available.
    required("amount", INTEGER),  # The credits of a purchase.
    required("month_max", INTEGER),  # The most credits that are bought in a calendar month of UTC.
    required("month", INTEGER),  # When the month of the last purchase began.
    required("spent", INTEGER),  # The credits bought in that month, with the pending purchase.
    required("declines", INTEGER),  # Payments declined in a row.
    Column("decline_reason", ImpersonalText),  # Of the last declined payment, a DeclineReason.
    Column("due_at", INTEGER),  # When the collector looks at the balance or the payment again; None: nothing is due.
    Column("purchase", ImpersonalText),  # The pending purchase, which becomes the id of its grant.
    required("purchase_amount", INTEGER),
    required("begun_at", INTEGER),  # When the last purchase began.
    Index("credit_top_ups_due_at", "due_at"),
    info=of_customers(ID, DELETION, DELETES, rights=CHANGE),
)
