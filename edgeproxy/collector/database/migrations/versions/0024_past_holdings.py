"""The times between which places were held, as they are billed; and the times at which credit notes are tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "past_holdings",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("taken_at", WHOLE, nullable=False),
        sa.Column("ended_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("past_holdings_ended_at", "past_holdings", ["customer", "meter", "ended_at"])
    op.add_column("credit_notes", sa.Column("failures", WHOLE, nullable=False, server_default="0"))
    op.add_column("credit_notes", sa.Column("try_at", WHOLE, nullable=False, server_default="0"))
