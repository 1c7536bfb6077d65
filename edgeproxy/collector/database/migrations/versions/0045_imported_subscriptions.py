"""Subscriptions of an existing Stripe account."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0045"
down_revision = "0044"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.create_table(
        "imported_subscriptions",
        sa.Column("stripe_id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("plan_version", sa.Text, nullable=False),
        sa.Column("is_yearly", WHOLE, nullable=False),
        sa.Column("anchor", WHOLE, nullable=False),
        sa.Column("begins_at", WHOLE, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("subscription", sa.Text, sa.ForeignKey("subscriptions.id")),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    for name, column, is_unique in (("waiting", "customer", True), ("begins_at", "begins_at", False)):
        op.create_index(
            f"imported_subscriptions_{name}",
            "imported_subscriptions",
            [column],
            unique=is_unique,
            sqlite_where=WAITING,
            postgresql_where=WAITING,
        )


def downgrade() -> None:
    waiting = "SELECT count(*) FROM imported_subscriptions WHERE state = 'waiting'"
    if op.get_bind().exec_driver_sql(waiting).scalar_one():
        raise CommandError("imported subscriptions have yet to begin, which the version before would never charge")
    op.drop_table("imported_subscriptions")
