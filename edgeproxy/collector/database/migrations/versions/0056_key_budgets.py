"""The budgets of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0056"
down_revision = "0055"


def upgrade() -> None:
    op.add_column("keys", sa.Column("budget", sa.Text))


def downgrade() -> None:
    op.drop_column("keys", "budget")
