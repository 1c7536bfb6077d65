"""What edges answered, by minute and hour."""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NUMBERS = (
    *("minutes", "requests", "rate_limited", "client_errors", "server_errors"),
    *(f"bucket_{number}" for number in range(18)),
)


def upgrade() -> None:
    for table, keys in (("traffic", ("edge",)), ("traffic_routes", ("edge", "route"))):
        op.create_table(
            table,
            *(sa.Column(name, WHOLE, primary_key=True, autoincrement=False) for name in ("step", "start")),
            *(sa.Column(name, sa.Text, primary_key=True) for name in keys),
            sa.Column("region", sa.Text, nullable=False),
            *(sa.Column(name, WHOLE, nullable=False) for name in NUMBERS),
            sqlite_with_rowid=False,
            sqlite_strict=True,
        )


def downgrade() -> None:
    op.drop_table("traffic_routes")
    op.drop_table("traffic")
