"""Trials of subscriptions."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0042"
down_revision = "0041"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("trial_ends_at", WHOLE))


def downgrade() -> None:
    trials = "SELECT count(*) FROM subscriptions WHERE trial_ends_at IS NOT NULL"
    if op.get_bind().exec_driver_sql(trials).scalar_one():
        raise CommandError("subscriptions have trials, which the version before would charge")
    op.drop_column("subscriptions", "trial_ends_at")
