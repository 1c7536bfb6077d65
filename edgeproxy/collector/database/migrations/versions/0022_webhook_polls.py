"""The place up to which Stripe's lists of events were read."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    made = op.create_table(
        "webhook_polls",
        sa.Column("list", sa.Text, primary_key=True),
        sa.Column("until", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    # Until now they were read from the latest event on that is known.
    latest = op.get_bind().execute(sa.text("SELECT max(created) FROM webhook_events")).scalar_one()
    if latest is not None:
        op.bulk_insert(made, [{"list": name, "until": latest} for name in ("snapshots", "thin")])
