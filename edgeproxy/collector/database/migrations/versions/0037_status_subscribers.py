"""Who has updates of incidents by mail."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "status_subscribers",
        sa.Column("email", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, nullable=False, unique=True),
        sa.Column("requested_at", WHOLE, nullable=False),
        sa.Column("confirmed_at", WHOLE),
        sa.Column("last_update", sa.Text, nullable=False, server_default=""),
        sqlite_strict=True,
    )


def downgrade() -> None:
    op.drop_table("status_subscribers")
