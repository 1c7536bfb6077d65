"""Addresses of people who want to become customers."""

import sqlalchemy as sa
from alembic import op

revision = "0055"
down_revision = "0054"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "sign_ups",
        sa.Column("email", sa.Text, primary_key=True),
        sa.Column("sha256", sa.Text, nullable=False, unique=True),
        sa.Column("requested_at", WHOLE, nullable=False),
        sa.Column("used_at", WHOLE),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("sign_ups")
