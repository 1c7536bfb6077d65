"""Dimensions of usage, and events that are readings."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
SERIES = ("edge", "region", "customer", "meter", "route")


def upgrade() -> None:
    op.add_column("batches", sa.Column("folded", sa.Text))
    _series()
    op.create_table(
        "series_dimensions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("series", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Text, nullable=False),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.create_table(
        "dimension_values",
        sa.Column("customer", sa.Text, primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        sa.Column("month", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sqlite_with_rowid=False,
        sqlite_strict=True,
    )
    op.add_column("events", sa.Column("dimensions", sa.Text, nullable=False, server_default=""))
    op.add_column("events", sa.Column("folded", sa.Text))
    op.add_column("events", sa.Column("item", sa.Text))
    op.add_column("events", sa.Column("is_summed", WHOLE, nullable=False, server_default="1"))
    readings = sa.text("is_summed = 0")
    op.create_index(
        "events_readings",
        "events",
        ["customer", "meter", "time"],
        sqlite_where=readings,
        postgresql_where=readings,
    )


def _series() -> None:
    """Tell series apart by their dimensions too."""
    if op.get_bind().dialect.name != "sqlite":
        op.add_column("series", sa.Column("dimensions", sa.Text, nullable=False, server_default=""))
        op.drop_constraint("series_key", "series")
        op.create_unique_constraint("series_key", "series", [*SERIES, "dimensions"])
        return
    # SQLite changes no constraint: the table is made anew.
    op.drop_index("series_customer_meter", "series")
    op.rename_table("series", "series_before")
    op.create_table(
        "series",
        sa.Column("id", WHOLE, nullable=False, autoincrement=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in SERIES),
        sa.Column("dimensions", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="series_pkey"),
        sa.UniqueConstraint(*SERIES, "dimensions", name="series_key"),
        sqlite_strict=True,
    )
    op.create_index("series_customer_meter", "series", ["customer", "meter"])
    names = ", ".join(SERIES)
    op.execute(f"INSERT INTO series (id, {names}) SELECT id, {names} FROM series_before ORDER BY id")
    op.drop_table("series_before")
