"""Customers' webhooks: endpoints, messages and deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("types", sa.Text),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("old_secret", sa.LargeBinary),
        sa.Column("old_secret_until", WHOLE),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("disabled_why", sa.Text),
        sa.Column("failing_since", WHOLE),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("webhook_endpoints_customer", "webhook_endpoints", ["customer"])
    op.create_table(
        "webhook_messages",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("webhook_messages_customer", "webhook_messages", ["customer"])
    op.create_index("webhook_messages_at", "webhook_messages", ["at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("message", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", WHOLE, nullable=False),
        sa.Column("due_at", WHOLE, nullable=False),
        sa.Column("busy_until", WHOLE, nullable=False),
        sa.Column("status", WHOLE),
        sa.Column("error", sa.Text),
        sa.Column("attempted_at", WHOLE),
        sqlite_strict=True,
    )
    op.create_index("webhook_deliveries_state", "webhook_deliveries", ["state", "due_at"])
    op.create_index("webhook_deliveries_endpoint", "webhook_deliveries", ["endpoint", "message"])


def downgrade() -> None:
    for table in ("webhook_deliveries", "webhook_messages", "webhook_endpoints"):
        op.drop_table(table)
