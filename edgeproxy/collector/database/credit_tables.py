"""The tables of prepaid credits: a journal of double entries, and what follows from it. Amounts are millicredits, in
transactions of other currencies than US dollars ten-thousandths of their smallest unit.

Rows of `credit_transactions` and `credit_entries` are only ever added (collector/billing/journal/journal.py), and
details of the oldest cleared (collector/billing/journal/cleared_details.py). Times are Unix ms.
"""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint

from edgeproxy.collector.database.book_text import JournalText
from edgeproxy.collector.database.schema import INTEGER, metadata

DETAILS = "credit_transactions.details"
"""The name by which details are sealed."""

# What happened, each once: `source` says what makes it this one, such as the id of a checkout session.
credit_transactions = Table(
    "credit_transactions",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("at", INTEGER, nullable=False),  # When it was booked; never before that of the one before.
    Column("customer", Text, ForeignKey("customers.id")),  # None: it is about no customer, as a payout.
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("original", Text, nullable=False),  # What it takes back, or the grant that it is about; else empty.
    # Of a consumption: the Unix second at which its hour begins. Of a balance transaction: that at which it was made.
    Column("slice", INTEGER, nullable=False),
    Column("amount", INTEGER, nullable=False),  # By how much it changes what there is to spend.
    Column("details", JournalText(DETAILS), nullable=False),  # JSON.
    Column("currency", Text, nullable=False, server_default="usd"),  # Of all its entries.
    Column("hash", Text, nullable=False),  # Of this row, its entries and the hash of the one before it.
    UniqueConstraint("kind", "source", name="credit_transactions_source_key"),
    Index("credit_transactions_customer", "customer", "at"),
    Index("credit_transactions_at", "at"),
    Index("credit_transactions_slice", "kind", "slice", "customer"),
    Index("credit_transactions_original", "original", "kind"),
    sqlite_strict=True,
)
credit_entries = Table(
    "credit_entries",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("position", INTEGER, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
    Column("amount", INTEGER, nullable=False),  # A debit above zero, a credit below.
    Column("grant_id", Text, nullable=False),  # Of deferred revenue; else empty.
    Column("meter", Text, nullable=False),
    Column("model", Text, nullable=False),
    Index("credit_entries_grant", "grant_id"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
# One row: the last transaction, under whose lock all are booked, and up to where usage is.
credit_head = Table(
    "credit_head",
    metadata,
    Column("seq", INTEGER, nullable=False),
    Column("hash", Text, nullable=False),
    Column("at", INTEGER, nullable=False),
    Column("slice", INTEGER, nullable=False),  # The Unix second from which on usage is not booked yet; 0: none is.
    # The last transaction whose details are cleared, and the hash of what is left up to it.
    Column("cleared_seq", INTEGER, nullable=False, server_default="0"),
    Column("cleared_hash", Text, nullable=False, server_default="0" * 64),
    sqlite_strict=True,
)

# What follows from the entries: what is left of each grant, and what each customer has.
credit_grants = Table(
    "credit_grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("number", INTEGER, nullable=False),  # That of the transaction which made it.
    Column("rest", INTEGER, nullable=False),
    Column("expires_at", INTEGER),
    Column("paid", INTEGER, nullable=False),
    Column("tax", INTEGER, nullable=False),
    Column("returned", INTEGER, nullable=False),  # How much of `paid` has gone back.
    Column("payment", Text),  # The payment intent of a purchase.
    UniqueConstraint("payment", name="credit_grants_payment_key"),
    Index("credit_grants_customer", "customer"),
    Index("credit_grants_expires_at", "expires_at"),
    sqlite_strict=True,
)
credit_balances = Table(
    "credit_balances",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("balance", INTEGER, nullable=False),
    Column("overdraft", INTEGER, nullable=False),
    Column("since", INTEGER, nullable=False),  # The Unix second of the hour from which on usage is paid by credits.
    # All that there ever was to spend: the balance, and what was used.
    Column("granted", INTEGER, nullable=False, server_default="0"),
    sqlite_strict=True,
)
