"""Hours that grew after they were rolled up, so that an export knows where it lacks something."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "late_hours",
        sa.Column("edge", sa.Text, primary_key=True),
        sa.Column("hour", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("times", WHOLE, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
