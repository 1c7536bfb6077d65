"""Reconciliation meter by meter and in money, the shadow log, and how the API of billing answers."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("reconciliations", sa.Column("meters", sa.Text, nullable=False, server_default="{}"))
    op.add_column("reconciliations", sa.Column("cents", WHOLE))
    op.add_column("reconciliations", sa.Column("cents_different", WHOLE))
    op.create_table(
        "rated",
        sa.Column("invoice", sa.Text, sa.ForeignKey("invoices.id"), primary_key=True),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("shadow", WHOLE, nullable=False),
        sa.Column("real", WHOLE),
        sa.Column("charged_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("rated_at", "rated", ["at"])
    op.create_table(
        "billing_answers",
        sa.Column("hour", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("requests", WHOLE, nullable=False),
        sa.Column("errors", WHOLE, nullable=False),
        sqlite_strict=True,
    )
