"""The directory as it is published: its log, and the parts of each version."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "directory_log",
        sa.Column("number", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.Column("left_at", WHOLE),
        sa.UniqueConstraint("token", name="directory_log_token_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "directory_parts",
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("place", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", WHOLE, nullable=False),
        sqlite_strict=True,
    )
