"""What people did about alerts, and kinds of alerts that are muted."""

import sqlalchemy as sa
from alembic import op

revision = "0053"
down_revision = "0052"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert_handling",
        sa.Column("alert", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("side", sa.Text, primary_key=True),
        sa.Column("acknowledged_at", WHOLE),
        sa.Column("acknowledged_by", sa.Text),
        sa.Column("acknowledged_why", sa.Text),
        sa.Column("assigned_to", sa.Text),
        sa.Column("assigned_by", sa.Text),
        sa.Column("assigned_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_table(
        "alert_mutes",
        sa.Column("side", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("muted_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("alert_mutes")
    op.drop_table("alert_handling")
