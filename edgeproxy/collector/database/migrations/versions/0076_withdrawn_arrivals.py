"""Arrivals that were withdrawn, so that a late call of a command that was killed makes no customer."""

import sqlalchemy as sa
from alembic import op

revision = "0076"
down_revision = "0075"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "withdrawn_arrivals",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("withdrawn_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("withdrawn_arrivals_withdrawn_at", "withdrawn_arrivals", ["withdrawn_at"])


def downgrade() -> None:
    op.drop_table("withdrawn_arrivals")
