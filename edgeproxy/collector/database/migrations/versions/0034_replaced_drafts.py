"""Invoices at Stripe that were deleted, voided or finalized there by hand, and are replaced."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.add_column("invoices", sa.Column("replaced_ids", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("invoices", "replaced_ids")
