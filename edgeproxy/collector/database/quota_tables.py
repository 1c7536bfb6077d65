"""The tables of quotas and limits: allocations, counts that edges need, and raises of limits."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, UniqueConstraint

from edgeproxy.collector.database.marks import (
    ALL,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    END_USER_ID,
    ID,
    NAME,
    OPERATOR,
    READ,
    REASON,
    ImpersonalText,
    mark,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, metadata

# Existing items that take a seat each, for example workflows and members (collector/quotas/allocations.py).
holdings = Table(
    "holdings",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    Column("item", Text, primary_key=True, info=END_USER_ID),  # The id, chosen by the service that reported the item.
    Column("taken_at", INTEGER, nullable=False),  # Unix milliseconds.
    Column("expires_at", INTEGER),  # When it is released automatically; None: never.
    Column("token", Text, nullable=False, info=OPERATOR),  # The token that reported it.
    info=of_customers(NAME, f"until it is released; {DELETION}", DELETES, rights=READ),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
# The times of released items, without the items, for billing by time. Unix ms.
past_holdings = Table(
    "past_holdings",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    Column("customer", Text, nullable=False, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, nullable=False),
    Column("taken_at", INTEGER, nullable=False),
    Column("ended_at", INTEGER, nullable=False),
    Index("past_holdings_ended_at", "customer", "meter", "ended_at"),
    info=of_customers(NAME, "for good, as the times are billed", rights=READ),
    sqlite_strict=True,
)

# Quotas that customers have through their plans, in addition to their tiers
# (collector/billing/subscriptions/entitlements.py).
entitlements = Table(
    "entitlements",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("plan_version", ImpersonalText, nullable=False),
    Column("quotas", ImpersonalText, nullable=False),  # JSON.
    info=of_customers(ID, f"until the subscription ends; {DELETION}", DELETES, rights=ALL),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
# Breached soft caps; the grace period starts with the breach.
quota_passes = Table(
    "quota_passes",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    Column("period", INTEGER, nullable=False),  # The number of the period.
    Column("at", INTEGER, nullable=False),  # The Unix second when the breach was detected.
    Column("due", INTEGER, nullable=False),  # The Unix second when the grace period ends.
    Column("until", INTEGER, nullable=False),  # The Unix second when the quota period ends.
    Column("is_over", INTEGER, nullable=False),  # 1: edges know that the grace period is over.
    info=of_customers(NAME, "until the period ends", DELETES, rights=READ),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Ledger counts of quotas that are used up or nearly so (collector/quotas/counts.py). `seq` grows with each change, so
# that edges can request only new counts.
quota_counts = Table(
    "quota_counts",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    Column("per", ImpersonalText, primary_key=True),  # `day`, `month`, or the period of an entitlement.
    Column("timezone", ImpersonalText, primary_key=True),
    Column("period", INTEGER, nullable=False),  # The number of the day or the month.
    Column("used", INTEGER, nullable=False),
    Column("seq", INTEGER, nullable=False),
    UniqueConstraint("seq", name="quota_counts_seq_key"),
    info=of_customers(NAME, DELETION, DELETES),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Raises of customers' rates and concurrency, at most one per customer. Times are Unix milliseconds
# (collector/accounts/limit_raises.py).
limit_raises = Table(
    "limit_raises",
    metadata,
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    Column("factor", INTEGER, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    Column("ends_at", INTEGER, nullable=False),
    Column("by", Text, nullable=False, info=OPERATOR),  # The actor, as in the audit log.
    Column("why", Text, nullable=False, info=mark(REASON, is_sealed=True)),
    Index("limit_raises_ends_at", "ends_at"),
    info=of_customers(ID, "until the raise ends", DELETES, rights=READ),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
