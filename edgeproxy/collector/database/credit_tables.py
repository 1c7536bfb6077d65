"""The tables of prepaid credits: a journal of double entries, and the state computed from it.

Amounts are millicredits. In transactions of other currencies than US dollars they are ten-thousandths of the smallest
unit of the currency.

Rows of `credit_transactions` and `credit_entries` are only ever added (collector/billing/journal/journal.py). Details
of the oldest rows are cleared (collector/billing/journal/cleared_details.py). Times are Unix ms.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint

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
from edgeproxy.collector.database.schema import INTEGER, metadata

DETAILS = "credit_transactions.details"
"""The column name that is bound into encrypted details."""

# Transactions, each recorded once: `source` identifies the cause, for example the id of a checkout session.
credit_transactions = Table(
    "credit_transactions",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("at", INTEGER, nullable=False),  # When it was booked; never earlier than the previous one.
    # None: it concerns no customer, for example a payout.
    Column("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    Column("kind", ImpersonalText, nullable=False),
    Column("source", Text, nullable=False, info=STRIPE_ID),
    Column("original", ImpersonalText, nullable=False),  # The reversed transaction, or the grant concerned; else empty.
    # For a consumption: the Unix second when its hour begins. For a balance transaction: the second of its creation.
    Column("slice", INTEGER, nullable=False),
    Column("amount", INTEGER, nullable=False),  # The change of the credit balance.
    # JSON.
    Column(
        "details",
        JournalText(DETAILS),
        nullable=False,
        info=personal(
            "ids at Stripe, and reasons of operators",
            Subject.CUSTOMER,
            "book-keeping",
            is_ended=True,
            encryption="encrypted, by the key of its year; fees, and what was booked in the clear, are not",
            operator_fields=frozenset({"by", "why"}),
        ),
    ),
    Column("currency", ImpersonalText, nullable=False, server_default="usd"),  # The currency of all its entries.
    Column("hash", ImpersonalText, nullable=False),  # Hash over this row, its entries and the previous row's hash.
    UniqueConstraint("kind", "source", name="credit_transactions_source_key"),
    Index("credit_transactions_customer", "customer", "at"),
    Index("credit_transactions_at", "at"),
    Index("credit_transactions_slice", "kind", "slice", "customer"),
    Index("credit_transactions_original", "original", "kind"),
    info=of_customers(ID, BOOKS, rights=READ),
    sqlite_strict=True,
)
credit_entries = Table(
    "credit_entries",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    Column("account", ImpersonalText, nullable=False),
    Column("amount", INTEGER, nullable=False),  # A debit is positive, a credit negative.
    Column("grant_id", ImpersonalText, nullable=False),  # For deferred revenue; else empty.
    Column("meter", ImpersonalText, nullable=False),
    Column("model", Text, nullable=False, info=DIMENSION),
    Index("credit_entries_grant", "grant_id"),
    info=of_customers(Owner("seq", "credit_transactions", "seq"), BOOKS, rights=READ),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
# One row: the last transaction, and the end of the booked usage. Every booking locks this row.
credit_head = Table(
    "credit_head",
    metadata,
    Column("seq", INTEGER, nullable=False),
    Column("hash", ImpersonalText, nullable=False),
    Column("at", INTEGER, nullable=False),
    Column("slice", INTEGER, nullable=False),  # Usage from this Unix second on is not booked yet; 0: none is.
    # The last transaction with cleared details, and the hash of the rows up to it after clearing.
    Column("cleared_seq", INTEGER, nullable=False, server_default="0"),
    Column("cleared_hash", ImpersonalText, nullable=False, server_default="0" * 64),
    info=shared("how far usage is booked: the end of the journal of credits", ONE),
    sqlite_strict=True,
)

# State computed from the entries: the rest of each grant, and each customer's balance.
credit_grants = Table(
    "credit_grants",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("number", INTEGER, nullable=False),  # The number of the transaction that created it.
    Column("rest", INTEGER, nullable=False),
    Column("expires_at", INTEGER),
    Column("paid", INTEGER, nullable=False),
    Column("tax", INTEGER, nullable=False),
    Column("returned", INTEGER, nullable=False),  # The part of `paid` that was refunded.
    Column("payment", Text, info=STRIPE_ID),  # The payment intent of a purchase.
    UniqueConstraint("payment", name="credit_grants_payment_key"),
    Index("credit_grants_customer", "customer"),
    Index("credit_grants_expires_at", "expires_at"),
    info=of_customers(ID, BOOKS, rights=READ),
    sqlite_strict=True,
)
credit_balances = Table(
    "credit_balances",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("balance", INTEGER, nullable=False),
    Column("overdraft", INTEGER, nullable=False),
    Column("since", INTEGER, nullable=False),  # The Unix second of the hour since which credits pay for usage.
    # The total ever available: the balance plus all consumption.
    Column("granted", INTEGER, nullable=False, server_default="0"),
    info=of_customers(ID, BOOKS, rights=READ),
    sqlite_strict=True,
)
# Automatic top-up: one row for each customer that ever turned it on, with its pending purchase.
credit_top_ups = Table(
    "credit_top_ups",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("state", ImpersonalText, nullable=False),  # on, off, declined.
    Column("below", INTEGER, nullable=False),  # A purchase begins when less than this is available.
    Column("amount", INTEGER, nullable=False),  # The credits of a purchase.
    Column("month_max", INTEGER, nullable=False),  # The most credits that are bought in a calendar month of UTC.
    Column("month", INTEGER, nullable=False),  # When the month of the last purchase began.
    Column("spent", INTEGER, nullable=False),  # The credits bought in that month, with the pending purchase.
    Column("declines", INTEGER, nullable=False),  # Payments declined in a row.
    Column("due_at", INTEGER),  # When the collector looks at the balance or the payment again; None: nothing is due.
    Column("purchase", ImpersonalText),  # The pending purchase, which becomes the id of its grant.
    Column("purchase_amount", INTEGER, nullable=False),
    Column("begun_at", INTEGER, nullable=False),  # When the last purchase began.
    Index("credit_top_ups_due_at", "due_at"),
    info=of_customers(ID, DELETION, DELETES, rights=CHANGE),
    sqlite_strict=True,
)
