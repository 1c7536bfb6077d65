"""What edges say of themselves: their version, and how old their view of the hub is."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("edges", sa.Column("version", sa.Text))
    op.add_column("edges", sa.Column("sync_age", WHOLE))
