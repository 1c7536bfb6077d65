"""The tables of quotas: the places that are taken, and what the ledger has counted that edges must know of."""

from sqlalchemy import Column, Table, Text, UniqueConstraint

from edgeproxy.database.schema import INTEGER, metadata

# What exists and takes a place each, such as workflows and seats (quotas/holdings.py).
holdings = Table(
    "holdings",
    metadata,
    Column("customer", Text, primary_key=True),  # The name.
    Column("meter", Text, primary_key=True),
    Column("item", Text, primary_key=True),  # The id that whoever took the place gave it.
    Column("taken_at", INTEGER, nullable=False),  # Unix milliseconds.
    Column("expires_at", INTEGER),  # When it is given back by itself; None: never.
    Column("token", Text, nullable=False),  # Who took it.
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# What the ledger has counted of quotas that are nearly used up, or are (quotas/counts.py). `seq` grows with each
# change, so that edges ask for what is new.
quota_counts = Table(
    "quota_counts",
    metadata,
    Column("customer", Text, primary_key=True),  # The name.
    Column("meter", Text, primary_key=True),
    Column("per", Text, primary_key=True),  # `day` or `month`.
    Column("timezone", Text, primary_key=True),
    Column("period", INTEGER, nullable=False),  # The number of the day or the month.
    Column("used", INTEGER, nullable=False),
    Column("seq", INTEGER, nullable=False),
    UniqueConstraint("seq", name="quota_counts_seq_key"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
