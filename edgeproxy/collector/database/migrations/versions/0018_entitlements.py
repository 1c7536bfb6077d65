"""Entitlements by plans and credits, as edges get them."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
GRANTED = """
UPDATE credit_balances SET granted = COALESCE(
  (SELECT SUM(t.amount) FROM credit_transactions t
   WHERE t.customer = credit_balances.customer AND t.kind <> 'consumption'), 0)
"""


def upgrade() -> None:
    op.create_table(
        "entitlements",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("plan_version", sa.Text, nullable=False),
        sa.Column("quotas", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_table(
        "quota_passes",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("period", WHOLE, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("due", WHOLE, nullable=False),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("is_over", WHOLE, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.add_column("rollout", sa.Column("credits_meter", sa.Text))
    op.add_column("credit_balances", sa.Column("granted", WHOLE, nullable=False, server_default="0"))
    op.execute(GRANTED)
