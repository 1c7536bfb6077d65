"""Quantities of subscriptions, such as seats."""

import sqlalchemy as sa
from alembic import op

revision = "0085"
down_revision = "0084"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("segments", sa.Column("quantity", WHOLE, nullable=False, server_default="1"))
    op.add_column("subscriptions", sa.Column("quantity", WHOLE, nullable=False, server_default="1"))
    op.add_column("subscriptions", sa.Column("next_quantity", WHOLE))


def downgrade() -> None:
    op.drop_column("subscriptions", "next_quantity")
    op.drop_column("subscriptions", "quantity")
    op.drop_column("segments", "quantity")
