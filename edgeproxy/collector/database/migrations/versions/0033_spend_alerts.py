"""Amounts of spending at which customers want to know."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "spend_alerts",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("amount", WHOLE, primary_key=True, autoincrement=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("spend_alerts")
