"""Errors of customers, as edges report them by minute."""

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0059"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "customer_errors",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("start", WHOLE, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("edge", "route")),
        sa.Column("status", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("by", sa.Text, primary_key=True),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("requests", WHOLE, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("customer_errors_start", "customer_errors", ["start"])


def downgrade() -> None:
    op.drop_table("customer_errors")
