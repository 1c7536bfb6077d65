"""Events that take usage back."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0083"
down_revision = "0082"

CORRECTIONS = "is_summed > 1 OR value < 0"


def upgrade() -> None:
    op.add_column("events", sa.Column("replaces", sa.Text))
    where = sa.text(CORRECTIONS)
    op.create_index("events_corrections", "events", ["time"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    if op.get_bind().exec_driver_sql(f"SELECT count(*) FROM events WHERE {CORRECTIONS}").scalar_one():
        raise CommandError("usage was taken back, which the version before would count")
    op.drop_index("events_corrections", "events")
    op.drop_column("events", "replaces")
