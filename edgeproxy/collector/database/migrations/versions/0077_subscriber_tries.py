"""When a mail to a subscriber of the status page is tried again."""

import sqlalchemy as sa
from alembic import op

revision = "0077"
down_revision = "0076"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("status_subscribers", sa.Column("failures", WHOLE, nullable=False, server_default="0"))
    op.add_column("status_subscribers", sa.Column("next_try_at", WHOLE))


def downgrade() -> None:
    op.drop_column("status_subscribers", "next_try_at")
    op.drop_column("status_subscribers", "failures")
