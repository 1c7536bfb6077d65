"""An index of alerts by severity: the urgent ones stand first, and of a million others none is read for them."""

from alembic import op

revision = "0079"
down_revision = "0078"


def upgrade() -> None:
    op.create_index("alerts_severity", "alerts", ["severity", "id"])


def downgrade() -> None:
    op.drop_index("alerts_severity", "alerts")
