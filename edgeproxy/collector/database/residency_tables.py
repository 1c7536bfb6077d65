"""The table of moves of customers between residencies, on the metadata of `schema.py`. Times are Unix milliseconds."""

from sqlalchemy import Column, ForeignKey, Index, Table, Text, text

from edgeproxy.collector.database.schema import INTEGER, metadata

# Moves, at the residency that is left and at the one that is moved to (collector/residency/moves.py).
customer_moves = Table(
    "customer_moves",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7, of the residency that is left; the other one has the same.
    Column("customer", Text, ForeignKey("customers.id"), nullable=False),
    Column("side", Text, nullable=False),  # `out` or `in`.
    Column("residency", Text, nullable=False),  # The other one.
    Column("peer", Text),  # The id of the customer there; None: it is not there yet.
    Column("state", Text, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    Column("gone_at", INTEGER),  # Since when edges go over.
    Column("ended_at", INTEGER),
    Column("counted", Text),  # JSON: usage by meter at the end of a move out; what comes later is late.
    Column("promised", Text),  # JSON: credits that are booked there, and not here yet.
    Index("customer_moves_customer", "customer"),
    Index(
        "customer_moves_open",
        "customer",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    sqlite_strict=True,
)

# Arrivals that were withdrawn, some of them before they came: a call of a command that was killed may come late.
withdrawn_arrivals = Table(
    "withdrawn_arrivals",
    metadata,
    Column("id", Text, primary_key=True),  # Of the move.
    Column("withdrawn_at", INTEGER, nullable=False),
    Index("withdrawn_arrivals_withdrawn_at", "withdrawn_at"),
    sqlite_strict=True,
)
