"""Forms that met an ended session, until their sender has signed in again."""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "held_forms",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("customer", sa.Text),
        sa.Column("page", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("ends_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("held_forms_ends_at", "held_forms", ["ends_at"])
    op.create_index("held_forms_label", "held_forms", ["label"])


def downgrade() -> None:
    op.drop_table("held_forms")
