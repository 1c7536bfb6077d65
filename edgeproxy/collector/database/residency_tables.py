"""The tables of customers' moves between residencies, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, text

from edgeproxy.collector.database.marks import (
    CUSTOMER_ID,
    FOR_SUMS,
    ID,
    ImpersonalText,
    closed,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, metadata

# Moves. Both residencies have a row for a move (collector/residency/moves.py).
customer_moves = Table(
    "customer_moves",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7, chosen by the old residency. Both residencies use it.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False, info=CUSTOMER_ID),
    Column("side", ImpersonalText, nullable=False),  # `out` or `in`.
    Column("residency", ImpersonalText, nullable=False),  # The other residency.
    Column("peer", Text, info=CUSTOMER_ID),  # The customer's id there; None until it exists there.
    Column("state", ImpersonalText, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    Column("gone_at", INTEGER),  # The time since which edges switch over.
    Column("ended_at", INTEGER),
    Column("counted", ImpersonalText),  # JSON: usage by meter at the end of a move out. Later usage is late.
    Column("promised", ImpersonalText),  # JSON: credits booked there, but not yet here.
    Index("customer_moves_customer", "customer"),
    Index(
        "customer_moves_open",
        "customer",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    info=of_customers(ID, FOR_SUMS),
    sqlite_strict=True,
)

# Withdrawn arrivals. A killed command's request may arrive late, so an arrival can be withdrawn before it arrives.
withdrawn_arrivals = Table(
    "withdrawn_arrivals",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # The id of the move.
    Column("withdrawn_at", INTEGER, nullable=False),
    Index("withdrawn_arrivals_withdrawn_at", "withdrawn_at"),
    info=closed("moves, by id", "7 days"),
    sqlite_strict=True,
)
