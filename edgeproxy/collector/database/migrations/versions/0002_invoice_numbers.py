"""Invoices are looked up by number, and the index of keys that end has all of them, also those without a successor."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NUMBERS, ENDS = "invoices_number", "keys_expires_at"


def upgrade() -> None:
    # The baseline makes the tables of today. So a database of revision 0001 may have the index already.
    op.create_index(NUMBERS, "invoices", ["number"], if_not_exists=True)
    _replace_ends("revoked_at IS NULL AND expires_at IS NOT NULL")


def downgrade() -> None:
    op.drop_index(NUMBERS, "invoices")
    _replace_ends("revoked_at IS NULL AND successor IS NOT NULL")


def _replace_ends(condition: str) -> None:
    op.drop_index(ENDS, "keys")
    op.create_index(ENDS, "keys", ["expires_at"], sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
