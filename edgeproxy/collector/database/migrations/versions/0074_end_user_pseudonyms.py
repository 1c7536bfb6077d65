"""The pseudonyms of end users whom dimensions name."""

import sqlalchemy as sa
from alembic import op

revision = "0074"
down_revision = "0073"


def upgrade() -> None:
    op.create_table(
        "end_users",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("pseudonym", sa.Text, nullable=False),
        sa.Index("end_users_customer", "customer"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("end_users")
