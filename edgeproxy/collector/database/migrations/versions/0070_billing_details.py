"""How customers pay and what is on their invoices, as Stripe has it."""

import sqlalchemy as sa
from alembic import op

revision = "0070"
down_revision = "0069"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "billing_details",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("payer", sa.Text, nullable=False),
        sa.Column("payment_method", sa.Text),
        sa.Column("read_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("billing_details")
