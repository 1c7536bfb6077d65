"""Tokens that are made over HTTP, and the secrets of each."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("role", sa.Text),
        sa.Column("customer", sa.Text),
        sa.Column("edge", sa.Text),
        sa.Column("region", sa.Text),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_table(
        "token_secrets",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("ends_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("token_secrets_token", "token_secrets", ["token"])
