"""Segments whose fee rests."""

import sqlalchemy as sa
from alembic import op

revision = "0084"
down_revision = "0083"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("segments", sa.Column("is_resting", WHOLE, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("segments", "is_resting")
