"""Delivery of keys that replace those that are due: public keys of customers, and keys on their way."""

import sqlalchemy as sa
from alembic import op

revision = "0086"
down_revision = "0085"

INDEXES = {
    "created_at": "revoked_at IS NULL AND successor IS NULL",
    "next_key": "next_key IS NOT NULL",
    "expires_at": "revoked_at IS NULL AND successor IS NOT NULL",
}


def upgrade() -> None:
    op.add_column("customers", sa.Column("public_key", sa.Text))
    op.add_column("keys", sa.Column("next_key", sa.Text))
    for column, condition in INDEXES.items():
        where = sa.text(condition)
        op.create_index(f"keys_{column}", "keys", [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for column in INDEXES:
        op.drop_index(f"keys_{column}", "keys")
    op.drop_column("keys", "next_key")
    op.drop_column("customers", "public_key")
