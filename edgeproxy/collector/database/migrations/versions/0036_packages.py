"""Invoice lines of packages of units."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("invoice_lines", sa.Column("package", WHOLE, nullable=False, server_default="1"))
