"""The version of a plan that Stripe's subscription charges, under `collection: meters`."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("told_version", sa.Text))
