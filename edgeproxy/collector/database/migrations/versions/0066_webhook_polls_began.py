"""When the last complete reading of each of Stripe's lists of events began."""

import sqlalchemy as sa
from alembic import op

revision = "0066"
down_revision = "0065"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("webhook_polls", sa.Column("began", WHOLE))


def downgrade() -> None:
    op.drop_column("webhook_polls", "began")
