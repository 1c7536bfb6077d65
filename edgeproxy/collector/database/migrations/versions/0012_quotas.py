"""Places that are taken, and what the ledger has counted of quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "holdings",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("item", sa.Text, primary_key=True),
        sa.Column("taken_at", WHOLE, nullable=False),
        sa.Column("expires_at", WHOLE),
        sa.Column("token", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_table(
        "quota_counts",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("per", sa.Text, primary_key=True),
        sa.Column("timezone", sa.Text, primary_key=True),
        sa.Column("period", WHOLE, nullable=False),
        sa.Column("used", WHOLE, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.UniqueConstraint("seq", name="quota_counts_seq_key"),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
