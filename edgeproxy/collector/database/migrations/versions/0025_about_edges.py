"""Reports of edges about themselves: their version, and the age of their view of the hub."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("edges", sa.Column("version", sa.Text))
    op.add_column("edges", sa.Column("sync_age", WHOLE))
