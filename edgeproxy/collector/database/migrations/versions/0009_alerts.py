"""Alerts, their deliveries, and anomalies."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("customer", sa.Text),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sa.Column("routed_at", WHOLE),
        sa.Column("escalated_at", WHOLE),
        sa.UniqueConstraint("key", name="alerts_key_key"),
        sqlite_strict=True,
    )
    op.create_index("alerts_customer", "alerts", ["customer", "id"])
    op.create_index("alerts_routed", "alerts", ["routed_at"])
    op.create_table(
        "alert_deliveries",
        sa.Column("alert", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("recipient", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("due_at", WHOLE, nullable=False),
        sa.Column("sent_at", WHOLE),
        sa.Column("error", sa.Text),
        sqlite_strict=True,
    )
    op.create_index("alert_deliveries_state", "alert_deliveries", ["state", "due_at"])
    op.create_table(
        "anomaly_baselines",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("built_at", WHOLE, nullable=False),
        sa.Column("numbers", sa.LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "anomalies",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("day", WHOLE, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("found_at", WHOLE, nullable=False),
        sa.Column("expires_at", WHOLE, nullable=False),
        sa.UniqueConstraint("customer", "meter", "day", name="anomalies_customer_key"),
        sqlite_strict=True,
    )
    op.create_index("anomalies_expires_at", "anomalies", ["expires_at"])
    op.create_table(
        "anomaly_progress",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("until", WHOLE, nullable=False),
        sqlite_strict=True,
    )
