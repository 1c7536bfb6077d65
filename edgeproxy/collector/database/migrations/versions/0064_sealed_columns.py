"""Ciphertexts of what is found by a keyed hash: people in sessions, links and held forms, addresses of the public."""

import sqlalchemy as sa
from alembic import op

revision = "0064"
down_revision = "0063"

COLUMNS = (
    ("held_forms", "label_sealed"),
    ("sessions", "label_sealed"),
    ("sign_in_links", "label_sealed"),
    ("sign_ups", "email_sealed"),
    ("status_subscribers", "email_sealed"),
)


def upgrade() -> None:
    for table, column in COLUMNS:
        op.add_column(table, sa.Column(column, sa.Text))


def downgrade() -> None:
    for table, column in COLUMNS:
        op.drop_column(table, column)
