"""Why customers end their plans."""

import sqlalchemy as sa
from alembic import op

revision = "0071"
down_revision = "0070"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "cancellations",
        sa.Column("subscription", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("cancellations_customer", "cancellations", ["customer"])
    op.create_index("cancellations_created_at", "cancellations", ["created_at"])


def downgrade() -> None:
    op.drop_table("cancellations")
