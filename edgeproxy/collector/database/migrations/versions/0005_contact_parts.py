"""Customers are found by the beginning of a contact's address or domain.

SQLite compares texts by character, so its existing indexes serve this search.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS = ("email", "domain")


def upgrade() -> None:
    # The baseline makes the indexes of today. So a database of revision 0001 may have them already.
    if op.get_bind().dialect.name != "sqlite":
        for column in COLUMNS:
            op.execute(f'CREATE INDEX IF NOT EXISTS contacts_{column}_c ON contacts ({column} COLLATE "C")')


def downgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        for column in COLUMNS:
            op.execute(f"DROP INDEX contacts_{column}_c")
