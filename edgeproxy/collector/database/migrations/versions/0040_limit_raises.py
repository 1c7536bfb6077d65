"""Raises of customers' limits for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "limit_raises",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("factor", WHOLE, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("limit_raises_ends_at", "limit_raises", ["ends_at"])


def downgrade() -> None:
    op.drop_table("limit_raises")
