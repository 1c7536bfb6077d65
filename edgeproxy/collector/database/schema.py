"""The tables of the collector's database. What changes here needs a migration (`migrations/versions/`).

Times are Unix seconds, `received` Unix milliseconds. The types are those that strict tables of SQLite have.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

REVISION = max(file.name[:4] for file in (Path(__file__).parent / "migrations/versions").glob("[0-9]*.py"))
"""Of which revision these tables are: that of the last migration."""
INTEGER = BigInteger().with_variant(Integer(), "sqlite")

COUNTED, GAP, QUARANTINED = "counted", "gap", "quarantined"
"""States of a batch: its rows are in the ledger; it reports lost batches; it is unreadable."""
PLAIN, ZSTD = "identity", "zstd"
"""Encodings of `body`."""
MINUTE, HOUR, DAY = 60, 3600, 86400
EVENTS = "~events"
"""The edge name of usage that services report: no edge can have this name."""
EVENTS_REGION = EVENTS_ROUTE = "-"
"""The region and the route of usage that services report."""
INTEGER_MAX = (1 << 63) - 1
"""The largest whole number of either database."""
MINUTE_VALUE_MAX = INTEGER_MAX * MINUTE // DAY
"""The largest value of a series in a minute: a day of such minutes still fits INTEGER_MAX."""

metadata = MetaData(naming_convention={"uq": "%(table_name)s_key", "pk": "%(table_name)s_pkey"})

edges = Table(
    "edges",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("region", Text),  # None where nothing of it could be read yet.
    Column("seq", INTEGER, nullable=False),  # The watermark: up to here all is settled.
    Column("hash", Text),  # Of the last body; None after a gap, when nobody knows it.
    Column("since", INTEGER),  # Of the last batch that could be read.
    Column("until", INTEGER),
    Column("received", INTEGER, nullable=False),
    Column("latest", INTEGER),  # The latest minute that it has in the ledger, or had.
    Column("token", Text),  # The name of the token that it is bound to; None until its first batch.
    Column("gap_to", INTEGER, nullable=False, server_default="0"),  # How far a gap at its beginning may go.
    Column("retired", INTEGER),  # Its watermark when it was retired; with a later one it is back.
    Column("version", Text),  # As it said with its last batch; None where it did not.
    Column("sync_age", INTEGER),  # Seconds since it agreed with the hub, likewise.
    sqlite_strict=True,
)

batches = Table(
    "batches",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("last", INTEGER, nullable=False),  # The seq itself; of a gap its end.
    Column("hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows", INTEGER, nullable=False),
    Column("since", INTEGER),
    Column("until", INTEGER),
    Column("why", Text),  # Of a gap; or why nobody could read it.
    Column("received", INTEGER, nullable=False),
    Column("coding", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # As it came where it could not be read.
    Column("replay", LargeBinary),  # The body that was counted in its place, compressed (quarantine.py).
    # Of rows with values beyond a bound, as what they counted: JSON of dimensions by the row's index (values.py).
    Column("folded", Text),
    sqlite_strict=True,
)
NOT_COUNTED = batches.c.state != text(f"'{COUNTED}'")
"""Condition of the index of batches that are not counted, which SQLite takes only for a query with just this one."""
Index(
    "batches_odd",
    batches.c.state,
    batches.c.edge,
    batches.c.seq,
    sqlite_where=NOT_COUNTED,
    postgresql_where=NOT_COUNTED,
)

series = Table(
    "series",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    Column("edge", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("customer", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("dimensions", Text, nullable=False, server_default=""),  # JSON with its names in order; empty without any.
    UniqueConstraint("edge", "region", "customer", "meter", "route", "dimensions"),
    Index("series_customer_meter", "customer", "meter"),
    sqlite_strict=True,
)

# The dimensions of series once more, to group by: each by itself.
series_dimensions = Table(
    "series_dimensions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("series", INTEGER, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Which values of a dimension a customer has had in a month: as many as it may have, others count as `~other`.
dimension_values = Table(
    "dimension_values",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("month", INTEGER, primary_key=True, autoincrement=False),  # The Unix second at which it begins, of UTC.
    Column("name", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)


def build_sums_table(name: str, unit: str, *more: SchemaItem, **options: Any) -> Table:
    """Build a table of the sum of each series in each `unit` of time, by the Unix second at which that begins."""
    return Table(
        name,
        metadata,
        Column("series", INTEGER, primary_key=True, autoincrement=False),
        Column(unit, INTEGER, primary_key=True, autoincrement=False),
        Column("value", INTEGER, nullable=False),
        *more,
        sqlite_with_rowid=False,
        sqlite_strict=True,
        **options,
    )


# On PostgreSQL a month is a partition, made by `Database.add`.
ledger = build_sums_table(
    "ledger",
    "minute",
    CheckConstraint(f"value <= {MINUTE_VALUE_MAX}", name="ledger_most"),
    postgresql_partition_by="RANGE (minute)",
)

# What the minutes that are rolled up come to, by hour and by day of UTC; a day has what there is of it so far.
hours = build_sums_table("hours", "hour")
days = build_sums_table("days", "day", postgresql_with={"fillfactor": 70})  # A row grows with each of its hours.

# One row. Rolled up are all hours before `hour`, and of `hour` the series up to `series`: each count of these is in
# `hours` and `days`, those of later ones in `ledger` alone. What is older than what is kept is in the coarser tables
# only: `ledger` has the minutes from `minutes_from` on, `hours` the hours from `hours_from` on, `days` all days.
rollup = Table(
    "rollup",
    metadata,
    Column("hour", INTEGER, nullable=False),
    Column("series", INTEGER, nullable=False),
    Column("minutes_from", INTEGER, nullable=False),
    Column("hours_from", INTEGER, nullable=False),
    sqlite_strict=True,
)

# At most one row, which on PostgreSQL the owner of the tables writes: the least seconds of minutes (null: for good).
minutes_floor = Table("minutes_floor", metadata, Column("seconds", INTEGER), sqlite_strict=True)

# How often an hour has grown by what an edge shipped once it was closed, which is when all of it is rolled up: what was
# exported of it before is not all (collector/exports/).
late_hours = Table(
    "late_hours",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    Column("times", INTEGER, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Of an edge whose batches were dropped for their age: how far, and what those came to, which is no longer in `batches`.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("seq", INTEGER, nullable=False),  # Those up to here are dropped where they were counted.
    Column("hash", Text),  # Of the last of these; None after a gap, when nobody knows it.
    Column("batches", INTEGER, nullable=False),  # How many were dropped.
    Column("minute", INTEGER, nullable=False),  # The latest that these have rows of; -1 where they have none.
    sqlite_strict=True,
)
dropped = build_sums_table("dropped", "day", postgresql_with={"fillfactor": 70})

CORRECTIONS = "is_summed > 1 OR value < 0"
"""Condition of events that were taken back, or take usage back."""
# What services reported, each event once: the rows of the ledger whose edge is EVENTS are made of these.
events = Table(
    "events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("value", INTEGER, nullable=False),
    Column("time", INTEGER, nullable=False),
    Column("is_dated", INTEGER, nullable=False),  # 0 where the time is that of its arrival.
    Column("request_id", Text),
    Column("dimensions", Text, nullable=False, server_default=""),  # As they were sent, as those of series.
    Column("folded", Text),  # As they count, where that is something else.
    Column("item", Text),  # What counts once, where the meter is `unique`.
    Column("is_summed", INTEGER, nullable=False, server_default="1"),  # 0: a reading; 2, 3: such, taken back.
    Column("upstream_request_id", Text),
    Column("replaces", Text),  # The id of the event that this one takes back.
    Index("events_time", "time"),
    Index(
        "events_readings",
        "customer",
        "meter",
        "time",
        sqlite_where=text("is_summed = 0"),
        postgresql_where=text("is_summed = 0"),
    ),
    Index("events_corrections", "time", sqlite_where=text(CORRECTIONS), postgresql_where=text(CORRECTIONS)),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Events that were rejected, for people to look at.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7.
    Column("received", INTEGER, nullable=False),
    Column("token", Text, nullable=False),  # Who sent it.
    Column("error", Text, nullable=False),
    Column("event", Text, nullable=False),  # JSON.
    sqlite_strict=True,
)

# Who changed what, and who was denied (collector/accounts/audit.py). Rows are only ever added.
audit = Table(
    "audit",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("at", INTEGER, nullable=False),  # Unix milliseconds.
    Column("actor", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("before", Text),  # JSON.
    Column("after", Text),
    Column("request_id", Text, nullable=False),
    Column("hash", Text, nullable=False),  # Of this row and the hash of the one before it.
    Index("audit_actor", "actor", "seq"),
    Index("audit_action", "action", "seq"),
    Index("audit_target", "target", "seq"),
    sqlite_strict=True,
)
# One row: the last of the audit log.
audit_head = Table(
    "audit_head",
    metadata,
    Column("seq", INTEGER, nullable=False),
    Column("hash", Text, nullable=False),
    sqlite_strict=True,
)

# Who pays. What edges must know of a customer is in `settings`, JSON as under `customers` of edge.yaml.
customers = Table(
    "customers",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7, as all ids of accounts.
    Column("name", Text, nullable=False),  # By which edges and the ledger know the customer.
    Column("external_id", Text),
    Column("tier", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON.
    Column("rotate_every", INTEGER),  # Seconds.
    Column("created_at", INTEGER, nullable=False),  # Unix milliseconds, as all times of accounts.
    Column("deleting_since", INTEGER),
    Column("erased_at", INTEGER),  # Since then nothing but the name, the id and the tier is left.
    Column("version", INTEGER, nullable=False),  # Grows with each change: the ETag.
    Column("external_id_sealed", Text),  # Encrypted; then `external_id` is a keyed hash (sealed_columns.py).
    Column("currency", Text),  # In which the customer is charged for good; none was chosen yet where it is NULL.
    Column("display_name", Text),  # By which people do, where the name is a pseudonym.
    Column("public_key", Text),  # A JWK: secrets of new keys are encrypted to it (collector/accounts/public_keys.py).
    UniqueConstraint("name", name="customers_name_key"),
    UniqueConstraint("external_id", name="customers_external_id_key"),
    Index("customers_tier", "tier", "id"),
    Index("customers_display_name", "display_name", unique=True),
    sqlite_strict=True,
)
# Jobs look for these few again and again, and not at all others.
for _some in (customers.c.deleting_since, customers.c.rotate_every):
    Index(f"customers_{_some.name}", _some, sqlite_where=_some.is_not(None), postgresql_where=_some.is_not(None))

# What customers send to edges; of the secret only the SHA-256.
keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),  # The id.
    Column("sha256", Text, nullable=False),
    Column("start", Text, nullable=False),  # The first characters of the secret, by which people know it.
    Column("name", Text),
    *(Column(name, Text) for name in ("scopes", "limits", "budget")),  # JSON.
    Column("created_at", INTEGER, nullable=False),
    Column("expires_at", INTEGER),
    Column("revoked_at", INTEGER),
    Column("revoked_for", Text),
    Column("last_used_on", INTEGER),  # The Unix second at which the day begins.
    Column("successor", Text),  # The id of the key that replaces it.
    Column("version", INTEGER, nullable=False),
    Column("next_key", Text),  # The id of the key that is to replace it once its customer has collected the secret.
    UniqueConstraint("sha256", name="keys_sha256_key"),
    Index("keys_customer", "customer", "id"),
    sqlite_strict=True,
)
# Jobs look for keys that are due, whose replacement is on its way, or that end because they were replaced.
for _column, _condition in (
    (keys.c.created_at, keys.c.revoked_at.is_(None) & keys.c.successor.is_(None)),
    (keys.c.next_key, keys.c.next_key.is_not(None)),
    (keys.c.expires_at, keys.c.revoked_at.is_(None) & keys.c.successor.is_not(None)),
):
    Index(f"keys_{_column.name}", _column, sqlite_where=_condition, postgresql_where=_condition)

flags = Table(
    "flags",
    metadata,
    Column("name", Text, primary_key=True),
    Column("settings", Text, nullable=False),  # JSON, as under `flags` of edge.yaml.
    Column("updated_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),
    sqlite_strict=True,
)

# Answers to requests with an Idempotency-Key, for who asks once more (collector/accounts/idempotency.py).
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),  # SHA-256 of who asked and of the Idempotency-Key.
    Column("request", Text, nullable=False),  # SHA-256 of what was asked.
    Column("answer", LargeBinary, nullable=False),  # Encrypted.
    Column("created_at", INTEGER, nullable=False),
    Index("idempotency_created_at", "created_at"),
    sqlite_strict=True,
)

# A row for each change of what edges must know, written with it; whoever has told edges takes it out.
directory_outbox = Table(
    "directory_outbox",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # `customer` or `flag`.
    Column("name", Text, nullable=False),
    sqlite_strict=True,
)

# The directory as it is published, a row for each version; the hub has a copy (collector/directory/publisher.py).
directory_log = Table(
    "directory_log",
    metadata,
    Column("number", INTEGER, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("left_at", INTEGER),  # The Unix second at which it was needed no more; None while it is.
    UniqueConstraint("token", name="directory_log_token_key"),
    sqlite_strict=True,
)
directory_parts = Table(
    "directory_parts",
    metadata,
    Column("token", Text, primary_key=True),
    Column("place", INTEGER, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", INTEGER, nullable=False),
    sqlite_strict=True,
)

# Tokens that were made over HTTP, beside those of the configuration (collector/accounts/tokens.py).
tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text),  # Or else a customer.
    Column("customer", Text),
    Column("edge", Text),
    Column("region", Text),
    Column("created_at", INTEGER, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", INTEGER),
    sqlite_strict=True,
)
token_secrets = Table(
    "token_secrets",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("token", Text, nullable=False),  # The name.
    Column("created_at", INTEGER, nullable=False),
    Column("ends_at", INTEGER),  # Once it is replaced.
    Index("token_secrets_token", "token"),
    sqlite_strict=True,
)

# Tables in modules of their own, which are part of the same metadata.
