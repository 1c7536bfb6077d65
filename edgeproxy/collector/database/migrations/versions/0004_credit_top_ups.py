"""Automatic top-up of credits: a row for each customer that turns it on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLE, DUE = "credit_top_ups", "credit_top_ups_due_at"
NUMBERS = ("below", "amount", "month_max", "month", "spent", "declines")
INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    # The baseline makes the tables of today. So a database of revision 0001 may have the table already.
    op.create_table(
        TABLE,
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        *(sa.Column(name, INTEGER, nullable=False) for name in NUMBERS),
        sa.Column("due_at", INTEGER),
        sa.Column("purchase", sa.Text),
        sa.Column("purchase_amount", INTEGER, nullable=False),
        sa.Column("begun_at", INTEGER, nullable=False),
        sqlite_strict=True,
        if_not_exists=True,
    )
    op.create_index(DUE, TABLE, ["due_at"], if_not_exists=True)


def downgrade() -> None:
    op.drop_table(TABLE)
