"""The languages in which people get their mails."""

import sqlalchemy as sa
from alembic import op

revision = "0057"
down_revision = "0056"

TABLES = ("contacts", "status_subscribers", "alert_deliveries")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("language", sa.Text))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "language")
