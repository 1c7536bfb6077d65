"""Automatic top-up has the reason for its last declined payment."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TABLE, REASON = "credit_top_ups", "decline_reason"


def upgrade() -> None:
    # The baseline makes the tables of today. So a database of revision 0001 may have the column already.
    if REASON not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(TABLE)}:
        op.add_column(TABLE, sa.Column(REASON, sa.Text))


def downgrade() -> None:
    op.drop_column(TABLE, REASON)
