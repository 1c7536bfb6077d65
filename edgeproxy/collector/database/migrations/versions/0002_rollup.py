"""Hours and days of the ledger, its months as partitions on PostgreSQL, and checkpoints of what is dropped."""

from calendar import monthrange
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOST = ((1 << 63) - 1) // 1440


def upgrade() -> None:
    op.add_column("edges", sa.Column("latest", WHOLE))
    op.add_column("edges", sa.Column("retired", WHOLE))  # Set by hand (`fleet.retire`).
    op.add_column("batches", sa.Column("replay", sa.LargeBinary))  # What `quarantine.py` counted in place of a body.
    op.execute(
        "UPDATE edges SET latest = (SELECT max(minute) FROM ledger JOIN series ON series.id = ledger.series"
        " WHERE series.edge = edges.edge)"
    )
    _ledger()
    _sums("hours", "hour")
    _sums("days", "day", postgresql_with={"fillfactor": 70})
    _sums("dropped", "day", postgresql_with={"fillfactor": 70})
    rollup = op.create_table(
        "rollup",
        sa.Column("hour", WHOLE, nullable=False),
        sa.Column("series", WHOLE, nullable=False),
        sa.Column("minutes_from", WHOLE, nullable=False),
        sa.Column("hours_from", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(rollup, [{"hour": 0, "series": 0, "minutes_from": 0, "hours_from": 0}])
    op.create_table(
        "checkpoints",
        sa.Column("edge", sa.Text, nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.Text),
        sa.Column("batches", WHOLE, nullable=False),
        sa.Column("minute", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("edge", name="checkpoints_pkey"),
        sqlite_strict=True,
    )


def _ledger() -> None:
    """Make the ledger anew, in months where there are partitions, and take over what was in it."""
    connection = op.get_bind()
    op.rename_table("ledger", "ledger_before")
    if connection.dialect.name != "sqlite":
        op.execute("ALTER INDEX ledger_pkey RENAME TO ledger_before_pkey")
    _sums("ledger", "minute", MOST, postgresql_partition_by="RANGE (minute)")
    if connection.dialect.name == "sqlite":
        op.execute("INSERT INTO ledger SELECT series, minute, value FROM ledger_before ORDER BY series, minute")
    else:
        month = "date_trunc('month', to_timestamp(minute) AT TIME ZONE 'UTC')"
        for begin in connection.execute(sa.text(f"SELECT DISTINCT {month} FROM ledger_before")).scalars().all():
            name = f"ledger_{begin.year:04}_{begin.month:02}"
            since = int(begin.replace(tzinfo=UTC).timestamp())
            until = since + monthrange(begin.year, begin.month)[1] * 86400
            span = f"minute >= {since} AND minute < {until}"
            op.execute(f"CREATE TABLE {name} (LIKE ledger INCLUDING CONSTRAINTS) WITH (fillfactor = 50)")
            op.execute(f"INSERT INTO {name} SELECT series, minute, value FROM ledger_before WHERE {span}")
            op.execute(f"ALTER TABLE ledger ATTACH PARTITION {name} FOR VALUES FROM ({since}) TO ({until})")
    op.drop_table("ledger_before")


def _sums(name: str, time: str, most: int | None = None, **options: Any) -> None:
    """Make a table of sums by series and time."""
    limit = [] if most is None else [sa.CheckConstraint(f"value <= {most}", name=f"{name}_most")]
    op.create_table(
        name,
        sa.Column("series", WHOLE, nullable=False, autoincrement=False),
        sa.Column(time, WHOLE, nullable=False, autoincrement=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("series", time, name=f"{name}_pkey"),
        *limit,
        sqlite_with_rowid=False,
        sqlite_strict=True,
        **options,
    )
