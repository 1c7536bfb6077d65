"""The tables of customers' moves between residencies, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, Text

from edgeproxy.collector.database.marks import (
    CUSTOMER_ID,
    FOR_SUMS,
    ID,
    ImpersonalText,
    closed,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, partial_index, required, strict_table

# Moves. Both residencies have a row for a move (collector/residency/moves.py).
customer_moves = strict_table(
    "customer_moves",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7, chosen by the old residency. Both residencies use it.
    required("customer", Text, ForeignKey("customers.id"), info=CUSTOMER_ID),
    required("side", ImpersonalText),  # `out` or `in`.
    required("residency", ImpersonalText),  # The other residency.
    Column("peer", Text, info=CUSTOMER_ID),  # The customer's id there; None until it exists there.
    required("state", ImpersonalText),
    required("created_at", INTEGER),
    Column("gone_at", INTEGER),  # The time since which edges switch over.
    Column("ended_at", INTEGER),
    Column("counted", ImpersonalText),  # JSON: usage by meter at the end of a move out. Later usage is late.
    Column("promised", ImpersonalText),  # JSON: credits booked there, but not yet here.
    Index("customer_moves_customer", "customer"),
    partial_index("customer_moves_open", "customer", unique=True, where="ended_at IS NULL"),
    info=of_customers(ID, FOR_SUMS),
)

# Withdrawn arrivals. A killed command's request may arrive late, so an arrival can be withdrawn before it arrives.
withdrawn_arrivals = strict_table(
    "withdrawn_arrivals",
    Column("id", ImpersonalText, primary_key=True),  # The id of the move.
    required("withdrawn_at", INTEGER),
    Index("withdrawn_arrivals_withdrawn_at", "withdrawn_at"),
    info=closed("moves, by id", "7 days"),
)
