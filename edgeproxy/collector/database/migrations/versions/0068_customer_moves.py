"""Moves of customers between residencies."""

import sqlalchemy as sa
from alembic import op

revision = "0068"
down_revision = "0067"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN = sa.text("ended_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "customer_moves",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("side", sa.Text, nullable=False),
        sa.Column("residency", sa.Text, nullable=False),
        sa.Column("peer", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("gone_at", WHOLE),
        sa.Column("ended_at", WHOLE),
        sa.Column("counted", sa.Text),
        sa.Column("promised", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("customer_moves_customer", "customer_moves", ["customer"])
    op.create_index(
        "customer_moves_open",
        "customer_moves",
        ["customer"],
        unique=True,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )


def downgrade() -> None:
    op.drop_table("customer_moves")
