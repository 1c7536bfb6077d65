"""Disputes of payments."""

import sqlalchemy as sa
from alembic import op

revision = "0081"
down_revision = "0080"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UNBOOKED = sa.text("disputes.booked <> disputes.taken_off")


def upgrade() -> None:
    op.create_table(
        "disputes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("invoice", sa.Text, sa.ForeignKey("invoices.id")),
        sa.Column("purchase", sa.Text, sa.ForeignKey("credit_grants.id")),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("answer_by", WHOLE),
        sa.Column("taken_off", WHOLE, nullable=False, server_default="0"),
        sa.Column("booked", WHOLE, nullable=False, server_default="0"),
        sa.Column("stripe_id", sa.Text),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("closed_at", WHOLE),
        sa.UniqueConstraint("stripe_id", name="disputes_stripe_id_key"),
        sa.Index("disputes_invoice", "invoice"),
        sa.Index("disputes_state", "state", "answer_by"),
        sa.Index("disputes_unbooked", "id", sqlite_where=UNBOOKED, postgresql_where=UNBOOKED),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("disputes")
