"""The deletion at Stripe of customers who are erased."""

import sqlalchemy as sa
from alembic import op

revision = "0065"
down_revision = "0064"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLUMNS = (("deleted_at", WHOLE), ("deletion_tried_at", WHOLE), ("deletion_waits_for", sa.Text))


def upgrade() -> None:
    for name, kind in COLUMNS:
        op.add_column("billing_customers", sa.Column(name, kind))


def downgrade() -> None:
    for name, _ in COLUMNS:
        op.drop_column("billing_customers", name)
