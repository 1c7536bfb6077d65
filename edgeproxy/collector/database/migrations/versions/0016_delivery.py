"""Exchange with Stripe: the outbox, webhooks, reconciliation and the roll-out."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "billing_outbox",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("slice", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("revision", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("segment", WHOLE, nullable=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("dated", WHOLE),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False, server_default="0"),
        sa.Column("key", WHOLE, nullable=False, server_default="0"),
        sa.Column("in_doubt", WHOLE, nullable=False, server_default="0"),
        sa.Column("due", WHOLE, nullable=False, server_default="0"),
        sa.Column("first_sent", WHOLE),
        sa.Column("answer", sa.Text),
        sa.Column("created", WHOLE, nullable=False),
        sa.Column("settled", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("billing_outbox_identifier", "billing_outbox", ["identifier"], unique=True)
    op.create_index("billing_outbox_state", "billing_outbox", ["state", "due"])
    op.create_index("billing_outbox_slice", "billing_outbox", ["slice"])
    op.create_table(
        "billing_slices",
        sa.Column("start", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("fixed", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    exporter = op.create_table(
        "billing_exporter",
        sa.Column("heartbeat", WHOLE, nullable=False),
        sa.Column("length", WHOLE, nullable=False),
        sa.Column("stopped", sa.Text),
        sa.Column("recheck_from", WHOLE, nullable=False, server_default="0"),
        sa.Column("recheck_until", WHOLE, nullable=False, server_default="0"),
        sqlite_strict=True,
    )
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("object_type", sa.Text, nullable=False),
        sa.Column("object", sa.Text, nullable=False),
        sa.Column("livemode", WHOLE, nullable=False),
        sa.Column("created", WHOLE, nullable=False),
        sa.Column("received", WHOLE, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False, server_default="0"),
        sa.Column("due", WHOLE, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("applied", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("webhook_events_state", "webhook_events", ["state", "due"])
    op.create_index("webhook_events_object", "webhook_events", ["object", "state"])
    op.create_index("webhook_events_received", "webhook_events", ["received"])
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("since", WHOLE, nullable=False),
        sa.Column("until", WHOLE, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("compared", WHOLE, nullable=False),
        sa.Column("units", WHOLE, nullable=False),
        sa.Column("different", WHOLE, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("rows", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("reconciliations_kind", "reconciliations", ["kind", "at"])
    rollout = op.create_table(
        "rollout",
        sa.Column("percent", WHOLE),
        sa.Column("since", WHOLE, nullable=False),
        sa.Column("charging", WHOLE, nullable=False),
        sa.Column("stopped_by", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("version", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "billing_waivers",
        sa.Column("since", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("until", WHOLE),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(exporter, [{"heartbeat": 0, "length": 300, "recheck_from": 0, "recheck_until": 0}])
    op.bulk_insert(rollout, [{"since": 0, "charging": 1, "version": 1}])
