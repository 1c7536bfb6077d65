"""The tables of quotas and limits: the places that are taken, what the ledger has counted that edges must know of, and
raises of limits."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint

from edgeproxy.collector.database.schema import INTEGER, metadata

# What exists and takes a place each, such as workflows and seats (collector/quotas/allocations.py).
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
# From when to when those were held that are held no more, without their items: what is billed of places. Unix ms.
past_holdings = Table(
    "past_holdings",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    Column("customer", Text, nullable=False),  # The name.
    Column("meter", Text, nullable=False),
    Column("taken_at", INTEGER, nullable=False),
    Column("ended_at", INTEGER, nullable=False),
    Index("past_holdings_ended_at", "customer", "meter", "ended_at"),
    sqlite_strict=True,
)

# The quotas that customers have by their plans, beside those of their tiers
# (collector/billing/subscriptions/entitlements.py).
entitlements = Table(
    "entitlements",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("plan_version", Text, nullable=False),
    Column("quotas", Text, nullable=False),  # JSON.
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
# Soft caps that were passed, from which on their grace runs.
quota_passes = Table(
    "quota_passes",
    metadata,
    Column("customer", Text, primary_key=True),  # The name.
    Column("meter", Text, primary_key=True),
    Column("period", INTEGER, nullable=False),  # The number of the period.
    Column("at", INTEGER, nullable=False),  # The Unix second at which it was found.
    Column("due", INTEGER, nullable=False),  # That at which the grace is over.
    Column("until", INTEGER, nullable=False),  # That at which the period is.
    Column("is_over", INTEGER, nullable=False),  # 1: edges know that the grace is over.
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# What the ledger has counted of quotas that are nearly used up, or are (collector/quotas/counts.py). `seq` grows with
# each change, so that edges ask for what is new.
quota_counts = Table(
    "quota_counts",
    metadata,
    Column("customer", Text, primary_key=True),  # The name.
    Column("meter", Text, primary_key=True),
    Column("per", Text, primary_key=True),  # `day`, `month`, or what an entitlement says.
    Column("timezone", Text, primary_key=True),
    Column("period", INTEGER, nullable=False),  # The number of the day or the month.
    Column("used", INTEGER, nullable=False),
    Column("seq", INTEGER, nullable=False),
    UniqueConstraint("seq", name="quota_counts_seq_key"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Raises of customers' rates and concurrency, one at a time for each; times are Unix milliseconds
# (collector/accounts/limit_raises.py).
limit_raises = Table(
    "limit_raises",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True),
    Column("factor", INTEGER, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    Column("ends_at", INTEGER, nullable=False),
    Column("by", Text, nullable=False),  # Who raised them, as in the audit log.
    Column("why", Text, nullable=False),
    Index("limit_raises_ends_at", "ends_at"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
