"""Events, and those that were rejected."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.Column("time", WHOLE, nullable=False),
        sa.Column("is_dated", WHOLE, nullable=False),
        sa.Column("request_id", sa.Text),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("events_time", "events", ["time"])
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("received", WHOLE, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sqlite_strict=True,
    )
