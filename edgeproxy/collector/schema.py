"""The tables of the collector's database. What changes here needs a migration (`migrations/versions/`).

Times are Unix seconds, `received` Unix milliseconds. The types are those that strict tables of SQLite have.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

REVISION = "0001"
"""Of which revision these tables are: that of the last migration."""
WHOLE = BigInteger().with_variant(Integer(), "sqlite")

COUNTED, GAP, QUARANTINED = "counted", "gap", "quarantined"
"""What a batch can be: its rows are in the ledger; it owned up to others that are gone; nobody could read it."""
PLAIN, ZSTD = "identity", "zstd"
"""How `body` is kept."""

metadata = MetaData(naming_convention={"uq": "%(table_name)s_key", "pk": "%(table_name)s_pkey"})

edges = Table(
    "edges",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("region", Text),  # None where nothing of it could be read yet.
    Column("seq", WHOLE, nullable=False),  # The watermark: up to here all is settled.
    Column("hash", Text),  # Of the last body; None after a gap, when nobody knows it.
    Column("since", WHOLE),  # Of the last batch that could be read.
    Column("until", WHOLE),
    Column("received", WHOLE, nullable=False),
    sqlite_strict=True,
)

batches = Table(
    "batches",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("seq", WHOLE, primary_key=True, autoincrement=False),
    Column("last", WHOLE, nullable=False),  # The seq itself; of a gap its end.
    Column("hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows", WHOLE, nullable=False),
    Column("since", WHOLE),
    Column("until", WHOLE),
    Column("why", Text),  # Of a gap; or why nobody could read it.
    Column("received", WHOLE, nullable=False),
    Column("coding", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # As it came where it could not be read.
    sqlite_strict=True,
)
Index(
    "batches_odd",
    batches.c.state,
    batches.c.edge,
    batches.c.seq,
    sqlite_where=batches.c.state != COUNTED,
    postgresql_where=batches.c.state != COUNTED,
)

series = Table(
    "series",
    metadata,
    Column("id", WHOLE, primary_key=True, autoincrement=True),
    Column("edge", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("customer", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("route", Text, nullable=False),
    UniqueConstraint("edge", "region", "customer", "meter", "route"),
    Index("series_customer_meter", "customer", "meter"),
    sqlite_strict=True,
)

ledger = Table(
    "ledger",
    metadata,
    Column("series", WHOLE, primary_key=True, autoincrement=False),
    Column("minute", WHOLE, primary_key=True, autoincrement=False),  # The Unix second at which it begins.
    Column("value", WHOLE, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
    postgresql_with={"fillfactor": 70},  # A row grows a dozen times within its minute; so it can stay on its page.
)
