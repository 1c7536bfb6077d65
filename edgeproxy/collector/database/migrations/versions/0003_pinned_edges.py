"""Edges are bound to the token that ships as them, and begin with a gap only where an operator has consented."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("edges", sa.Column("token", sa.Text))
    op.add_column("edges", sa.Column("gap_to", WHOLE, nullable=False, server_default="0"))
