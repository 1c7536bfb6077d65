"""Changes of prices that are scheduled, and the versions to which subscribers move by them."""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "price_changes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("decided_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("price_changes_state", "price_changes", ["state", "at"])
    op.create_table(
        "price_moves",
        sa.Column("change", sa.Text, sa.ForeignKey("price_changes.id"), primary_key=True),
        sa.Column("plan", sa.Text, primary_key=True),
        sa.Column("before", sa.Text, sa.ForeignKey("plan_versions.version"), nullable=False),
        sa.Column("after", sa.Text, sa.ForeignKey("plan_versions.version"), nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("withdrawn", WHOLE, nullable=False, server_default="0"),
        sqlite_strict=True,
    )
    in_force = sa.text("withdrawn = 0")
    for name, columns in (("price_moves_after", ["after"]), ("price_moves_plan_at", ["plan", "at"])):
        op.create_index(name, "price_moves", columns, unique=True, sqlite_where=in_force, postgresql_where=in_force)


def downgrade() -> None:
    op.drop_table("price_moves")
    op.drop_table("price_changes")
