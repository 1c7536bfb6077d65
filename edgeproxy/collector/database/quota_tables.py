"""The tables of quotas and limits: allocations, counts that edges need, and raises of limits."""

from sqlalchemy import Column, ForeignKey, Index, Text, UniqueConstraint

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
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

# Existing items that take a seat each, for example workflows and members (collector/quotas/allocations.py).
holdings = strict_table(
    "holdings",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    Column("item", Text, primary_key=True, info=END_USER_ID),  # The id, chosen by the service that reported the item.
    required("taken_at", INTEGER),  # Unix milliseconds.
    Column("expires_at", INTEGER),  # When it is released automatically; None: never.
    required("token", Text, info=OPERATOR),  # The token that reported it.
    info=of_customers(NAME, f"until it is released; {DELETION}", DELETES, rights=READ),
    sqlite_with_rowid=False,
)
# The times of released items, without the items, for billing by time. Unix ms.
past_holdings = strict_table(
    "past_holdings",
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    required("customer", Text, info=CUSTOMER_NAME),  # The name.
    required("meter", ImpersonalText),
    required("taken_at", INTEGER),
    required("ended_at", INTEGER),
    Index("past_holdings_ended_at", "customer", "meter", "ended_at"),
    info=of_customers(NAME, "for good, as the times are billed", rights=READ),
)

# Quotas that customers have through their plans, in addition to their tiers
# (collector/billing/subscriptions/entitlements.py).
entitlements = strict_table(
    "entitlements",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    required("plan_version", ImpersonalText),
    required("quotas", ImpersonalText),  # JSON.
    info=of_customers(ID, f"until the subscription ends; {DELETION}", DELETES, rights=ALL),
    sqlite_with_rowid=False,
)
# Breached soft caps; the grace period starts with the breach.
quota_passes = strict_table(
    "quota_passes",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    required("period", INTEGER),  # The number of the period.
    required("at", INTEGER),  # The Unix second when the breach was detected.
    required("due", INTEGER),  # The Unix second when the grace period ends.
    required("until", INTEGER),  # The Unix second when the quota period ends.
    required("is_over", INTEGER),  # 1: edges know that the grace period is over.
    info=of_customers(NAME, "until the period ends", DELETES, rights=READ),
    sqlite_with_rowid=False,
)

# Ledger counts of quotas that are used up or nearly so (collector/quotas/counts.py). `seq` grows with each change, so
# that edges can request only new counts.
quota_counts = strict_table(
    "quota_counts",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name.
    Column("meter", ImpersonalText, primary_key=True),
    Column("per", ImpersonalText, primary_key=True),  # `day`, `month`, or the period of an entitlement.
    Column("timezone", ImpersonalText, primary_key=True),
    required("period", INTEGER),  # The number of the day or the month.
    required("used", INTEGER),
    required("seq", INTEGER),
    UniqueConstraint("seq", name="quota_counts_seq_key"),
    info=of_customers(NAME, DELETION, DELETES),
    sqlite_with_rowid=False,
)

# Raises of customers' rates and concurrency, at most one per customer. Times are Unix milliseconds
# (collector/accounts/limit_raises.py).
limit_raises = strict_table(
    "limit_raises",
    Column("customer", Text, ForeignKey("customers.id"), primary_key=True, info=CUSTOMER_ID),
    required("factor", INTEGER),
    required("created_at", INTEGER),
    required("ends_at", INTEGER),
    required("by", Text, info=OPERATOR),  # The actor, as in the audit log.
    required("why", Text, info=mark(REASON, is_sealed=True)),
    Index("limit_raises_ends_at", "ends_at"),
    info=of_customers(ID, "until the raise ends", DELETES, rights=READ),
    sqlite_with_rowid=False,
)
