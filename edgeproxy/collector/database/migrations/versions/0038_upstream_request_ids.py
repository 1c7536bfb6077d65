"""Events may have the id that another company's API gave to their request."""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    op.add_column("events", sa.Column("upstream_request_id", sa.Text))


def downgrade() -> None:
    op.drop_column("events", "upstream_request_id")
