"""A mark of customers' sessions and links that come from an issuer, which is asked about them again."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for table in ("sessions", "sign_in_links"):
        op.add_column(table, sa.Column("by_issuer", WHOLE, nullable=False, server_default="0"))
