"""The number of an invoice as Stripe prints it, and the times at which it was issued, is due and was paid."""

import sqlalchemy as sa
from alembic import op

revision = "0051"
down_revision = "0050"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIMES = ("issued_at", "due_at", "paid_at")


def upgrade() -> None:
    """Add the columns; of an invoice that is there already they come with its next event."""
    op.add_column("invoices", sa.Column("number", sa.Text))
    for name in TIMES:
        op.add_column("invoices", sa.Column(name, WHOLE))


def downgrade() -> None:
    for name in ("number", *TIMES):
        op.drop_column("invoices", name)
