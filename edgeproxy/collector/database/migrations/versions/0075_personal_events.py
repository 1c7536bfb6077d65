"""An index of events with personal data, by customer, so that an erasure does not read all events."""

import sqlalchemy as sa
from alembic import op

revision = "0075"
down_revision = "0074"


def upgrade() -> None:
    personal = sa.text("request_id IS NOT NULL OR upstream_request_id IS NOT NULL OR item IS NOT NULL")
    op.create_index("events_personal", "events", ["customer"], sqlite_where=personal, postgresql_where=personal)


def downgrade() -> None:
    op.drop_index("events_personal", "events")
