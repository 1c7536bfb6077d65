"""Customers, their keys and flags; answers that are kept for who asks again; and what edges must be told."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("rotate_every", WHOLE),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("deleting_since", WHOLE),
        sa.Column("version", WHOLE, nullable=False),
        sa.UniqueConstraint("name", name="customers_name_key"),
        sa.UniqueConstraint("external_id", name="customers_external_id_key"),
        sqlite_strict=True,
    )
    op.create_index("customers_tier", "customers", ["tier", "id"])
    op.create_table(
        "keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("start", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("scopes", sa.Text),
        sa.Column("limits", sa.Text),
        sa.Column("created_at", WHOLE, nullable=False),
        sa.Column("expires_at", WHOLE),
        sa.Column("revoked_at", WHOLE),
        sa.Column("revoked_for", sa.Text),
        sa.Column("last_used_on", WHOLE),
        sa.Column("successor", sa.Text),
        sa.Column("version", WHOLE, nullable=False),
        sa.UniqueConstraint("sha256", name="keys_sha256_key"),
        sqlite_strict=True,
    )
    op.create_index("keys_customer", "keys", ["customer", "id"])
    op.create_table(
        "flags",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("updated_at", WHOLE, nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("idempotency_created_at", "idempotency", ["created_at"])
    op.create_table(
        "directory_outbox",
        sa.Column("seq", WHOLE, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sqlite_strict=True,
    )
