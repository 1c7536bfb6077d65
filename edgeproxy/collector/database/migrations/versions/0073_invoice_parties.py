"""The parties of invoices, as Stripe has printed them."""

import sqlalchemy as sa
from alembic import op

revision = "0073"
down_revision = "0072"


def upgrade() -> None:
    op.create_table(
        "invoice_parties",
        sa.Column("invoice", sa.Text, sa.ForeignKey("invoices.id"), primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("parties", sa.Text, nullable=False),
        sa.Index("invoice_parties_customer", "customer"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("invoice_parties")
