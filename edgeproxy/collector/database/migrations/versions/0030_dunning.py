"""Invoices whose payment was declined: how often, why, and when it is tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dunning",
        sa.Column("invoice", sa.Text, sa.ForeignKey("invoices.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("declines", WHOLE, nullable=False),
        sa.Column("declined_at", WHOLE, nullable=False),
        sa.Column("retry_at", WHOLE),
        sa.Column("payment_method", sa.Text),
        sa.Column("why", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("dunning_retry_at", "dunning", ["state", "retry_at"])


def downgrade() -> None:
    op.drop_table("dunning")
