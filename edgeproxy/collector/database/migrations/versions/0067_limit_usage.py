"""What watched customers use of their limits now."""

import sqlalchemy as sa
from alembic import op

revision = "0067"
down_revision = "0066"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "limit_watches",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("operator_until", WHOLE, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("limit_watches_until", "limit_watches", ["until"])
    op.create_table(
        "limit_usage",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("customer", "edge")),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_index("limit_usage_edge", "limit_usage", ["edge"])


def downgrade() -> None:
    op.drop_table("limit_usage")
    op.drop_table("limit_watches")
