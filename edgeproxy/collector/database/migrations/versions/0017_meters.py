"""Segments as Stripe has them, under `collection: meters`."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("segments", sa.Column("collection", sa.Text, nullable=False, server_default="invoice_items"))
    op.add_column("segments", sa.Column("told_from", WHOLE))
    op.add_column("segments", sa.Column("told_until", WHOLE))
    op.add_column("billing_outbox", sa.Column("since", WHOLE, nullable=False, server_default="0"))
    op.create_index("billing_outbox_until", "billing_outbox", ["until"])
