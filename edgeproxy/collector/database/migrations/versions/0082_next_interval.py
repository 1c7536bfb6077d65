"""The interval by which a subscription is paid when its paid time ends."""

import sqlalchemy as sa
from alembic import op

revision = "0082"
down_revision = "0081"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("next_is_yearly", WHOLE))


def downgrade() -> None:
    op.drop_column("subscriptions", "next_is_yearly")
