"""Edges, their batches, and the ledger of minutes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "edges",
        sa.Column("edge", sa.Text, nullable=False),
        sa.Column("region", sa.Text),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.Text),
        sa.Column("since", WHOLE),
        sa.Column("until", WHOLE),
        sa.Column("received", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("edge", name="edges_pkey"),
        sqlite_strict=True,
    )
    op.create_table(
        "batches",
        sa.Column("edge", sa.Text, nullable=False),
        sa.Column("seq", WHOLE, nullable=False, autoincrement=False),
        sa.Column("last", WHOLE, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("rows", WHOLE, nullable=False),
        sa.Column("since", WHOLE),
        sa.Column("until", WHOLE),
        sa.Column("why", sa.Text),
        sa.Column("received", WHOLE, nullable=False),
        sa.Column("coding", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("edge", "seq", name="batches_pkey"),
        sqlite_strict=True,
    )
    uncounted = sa.text("state != 'counted'")
    op.create_index(
        "batches_odd", "batches", ["state", "edge", "seq"], sqlite_where=uncounted, postgresql_where=uncounted
    )
    op.create_table(
        "series",
        sa.Column("id", WHOLE, nullable=False, autoincrement=True),
        sa.Column("edge", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="series_pkey"),
        sa.UniqueConstraint("edge", "region", "customer", "meter", "route", name="series_key"),
        sqlite_strict=True,
    )
    op.create_index("series_customer_meter", "series", ["customer", "meter"])
    op.create_table(
        "ledger",
        sa.Column("series", WHOLE, nullable=False, autoincrement=False),
        sa.Column("minute", WHOLE, nullable=False, autoincrement=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("series", "minute", name="ledger_pkey"),
        sqlite_with_rowid=False,
        sqlite_strict=True,
        postgresql_with={"fillfactor": 70},
    )
