"""Requests of people about their data."""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0049"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "privacy_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("law", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("steps", sa.Text),
        sa.Column("requested_at", WHOLE, nullable=False),
        sa.Column("due_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("privacy_requests_customer", "privacy_requests", ["customer"])
    is_open = sa.text("ended_at IS NULL")
    op.create_index("privacy_requests_open", "privacy_requests", ["id"], sqlite_where=is_open, postgresql_where=is_open)


def downgrade() -> None:
    op.drop_table("privacy_requests")
