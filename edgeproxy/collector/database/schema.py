"""The tables of the collector's database. A change here needs a migration (`migrations/versions/`).

Times are Unix seconds, `received` Unix milliseconds. Column types are limited to the types of SQLite's strict tables.
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
"""The revision of these tables: the number of the last migration."""
INTEGER = BigInteger().with_variant(Integer(), "sqlite")

COUNTED, GAP, QUARANTINED = "counted", "gap", "quarantined"
"""States of a batch: its rows are in the ledger; it reports lost batches; it is unreadable."""
PLAIN, ZSTD = "identity", "zstd"
"""Encodings of `body`."""
MINUTE, HOUR, DAY = 60, 3600, 86400
EVENTS = "~events"
"""The edge name of usage that services report. No edge can have this name."""
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
    Column("region", Text),  # None until one of its batches can be read.
    Column("seq", INTEGER, nullable=False),  # The watermark: batches up to here are processed.
    Column("hash", Text),  # Hash of the last body; None after a gap, because that body is lost.
    Column("since", INTEGER),  # Of the last readable batch.
    Column("until", INTEGER),
    Column("received", INTEGER, nullable=False),
    Column("latest", INTEGER),  # The latest minute that the edge has, or had, in the ledger.
    Column("token", Text),  # The name of the token that the edge is bound to; None until its first batch.
    Column("gap_to", INTEGER, nullable=False, server_default="0"),  # The last seq that an initial gap may reach.
    Column("retired", INTEGER),  # The watermark when it was retired; a later one ends retirement.
    Column("version", Text),  # As reported in its last batch; None if not reported.
    Column("sync_age", INTEGER),  # Seconds since it synchronized with the hub, likewise.
    sqlite_strict=True,
)

batches = Table(
    "batches",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("last", INTEGER, nullable=False),  # The seq itself, or the last lost seq of a gap.
    Column("hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("rows", INTEGER, nullable=False),
    Column("since", INTEGER),
    Column("until", INTEGER),
    Column("why", Text),  # Reason of a gap, or why the batch is unreadable.
    Column("received", INTEGER, nullable=False),
    Column("coding", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # The body as received, if it is unreadable.
    Column("replay", LargeBinary),  # The body that was counted instead, compressed (quarantine.py).
    # Dimensions as counted, for rows with too many dimension values: JSON by the row's index (values.py).
    Column("folded", Text),
    sqlite_strict=True,
)
NOT_COUNTED = batches.c.state != text(f"'{COUNTED}'")
"""Condition of the index of batches that are not counted. SQLite uses the index only for queries with this condition.
"""
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
    Column("dimensions", Text, nullable=False, server_default=""),  # JSON with sorted names; empty if there are none.
    UniqueConstraint("edge", "region", "customer", "meter", "route", "dimensions"),
    Index("series_customer_meter", "customer", "meter"),
    sqlite_strict=True,
)

# The dimensions of series again, one row each, for grouping.
series_dimensions = Table(
    "series_dimensions",
    metadata,
    Column("name", Text, primary_key=True),
    Column("series", INTEGER, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# The values of a dimension that a customer had in a month. Values above the permitted number count as `~other`.
dimension_values = Table(
    "dimension_values",
    metadata,
    Column("customer", Text, primary_key=True),
    Column("meter", Text, primary_key=True),
    Column("month", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the month begins in UTC.
    Column("name", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)


def build_sums_table(name: str, unit: str, *more: SchemaItem, **options: Any) -> Table:
    """Build a table with the sum of each series per `unit` of time. The key is the Unix second when the unit begins."""
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


# On PostgreSQL each month is a partition, created by `Database.add`.
ledger = build_sums_table(
    "ledger",
    "minute",
    CheckConstraint(f"value <= {MINUTE_VALUE_MAX}", name="ledger_most"),
    postgresql_partition_by="RANGE (minute)",
)

# Sums of the rolled-up minutes by hour and by day of UTC. The sum of a day grows until its last hour is rolled up.
hours = build_sums_table("hours", "hour")
days = build_sums_table("days", "day", postgresql_with={"fillfactor": 70})  # A row grows with each of its hours.

# One row. All hours before `hour` are rolled up, and the series of `hour` up to `series`. Rolled-up counts are in
# `hours` and `days`; later counts are only in `ledger`. Retention removes old rows from the finer tables: `ledger`
# starts at `minutes_from`, `hours` at `hours_from`, and `days` has all days.
rollup = Table(
    "rollup",
    metadata,
    Column("hour", INTEGER, nullable=False),
    Column("series", INTEGER, nullable=False),
    Column("minutes_from", INTEGER, nullable=False),
    Column("hours_from", INTEGER, nullable=False),
    sqlite_strict=True,
)

# At most one row: the least retention of minutes in seconds (null: keep all). On PostgreSQL the owner of the tables
# writes it.
minutes_floor = Table("minutes_floor", metadata, Column("seconds", INTEGER), sqlite_strict=True)

# Counts how often an edge's late usage changed an hour after it was closed, that is, completely rolled up. An earlier
# export of such an hour is incomplete (collector/exports/).
late_hours = Table(
    "late_hours",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    Column("times", INTEGER, nullable=False),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# For each edge whose old batches were dropped: the last dropped batch, and totals of the dropped batches, since
# `batches` no longer has them.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("edge", Text, primary_key=True),
    Column("seq", INTEGER, nullable=False),  # Counted batches up to here are dropped.
    Column("hash", Text),  # Hash of the last of them; None after a gap, because it is lost.
    Column("batches", INTEGER, nullable=False),  # Number of dropped batches.
    Column("minute", INTEGER, nullable=False),  # The latest minute in their rows; -1 if they have no rows.
    sqlite_strict=True,
)
dropped = build_sums_table("dropped", "day", postgresql_with={"fillfactor": 70})

CORRECTIONS = "is_summed > 1 OR value < 0"
"""Condition of events that were corrected, or that correct usage."""
# Events that services reported, each once. The ledger rows of the edge EVENTS are sums of these.
events = Table(
    "events",
    metadata,
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("value", INTEGER, nullable=False),
    Column("time", INTEGER, nullable=False),
    Column("is_dated", INTEGER, nullable=False),  # 0 if the time is the time of arrival.
    Column("request_id", Text),
    Column("dimensions", Text, nullable=False, server_default=""),  # As sent, in the form of `series.dimensions`.
    Column("folded", Text),  # Dimensions as counted, if different.
    Column("item", Text),  # The item that a `unique` meter counts once.
    Column("is_summed", INTEGER, nullable=False, server_default="1"),  # 0: a reading; 2 and 3: corrected ones.
    Column("upstream_request_id", Text),
    Column("replaces", Text),  # The id of the event that this one corrects.
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

# Rejected events, for operators to inspect.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7.
    Column("received", INTEGER, nullable=False),
    Column("token", Text, nullable=False),  # The sender.
    Column("error", Text, nullable=False),
    Column("event", Text, nullable=False),  # JSON.
    sqlite_strict=True,
)

# The audit log: changes and denied attempts (collector/accounts/audit.py). Rows are only ever added.
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
    Column("hash", Text, nullable=False),  # Hash over this row and the previous row's hash.
    Index("audit_actor", "actor", "seq"),
    Index("audit_action", "action", "seq"),
    Index("audit_target", "target", "seq"),
    sqlite_strict=True,
)
# One row: the end of the audit log.
audit_head = Table(
    "audit_head",
    metadata,
    Column("seq", INTEGER, nullable=False),
    Column("hash", Text, nullable=False),
    sqlite_strict=True,
)

# Customers. `settings` holds the settings that edges need, in the JSON form of `customers` in edge.yaml.
customers = Table(
    "customers",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7, like all ids of accounts.
    Column("name", Text, nullable=False),  # The customer's name in edges and the ledger.
    Column("external_id", Text),
    Column("tier", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON.
    Column("rotate_every", INTEGER),  # Seconds.
    Column("created_at", INTEGER, nullable=False),  # Unix milliseconds, like all times of accounts.
    Column("deleting_since", INTEGER),
    Column("erased_at", INTEGER),  # Since then only the name, the id and the tier remain.
    Column("version", INTEGER, nullable=False),  # Grows with each change: the ETag.
    Column("external_id_sealed", Text),  # Encrypted; then `external_id` is a keyed hash (sealed_columns.py).
    Column("currency", Text),  # The permanent currency of charges; NULL until one is chosen.
    Column("display_name", Text),  # The name for people if `name` is a pseudonym.
    Column("public_key", Text),  # A JWK: secrets of new keys are encrypted to it (collector/accounts/public_keys.py).
    UniqueConstraint("name", name="customers_name_key"),
    UniqueConstraint("external_id", name="customers_external_id_key"),
    Index("customers_tier", "tier", "id"),
    Index("customers_display_name", "display_name", unique=True),
    sqlite_strict=True,
)
# Jobs often search for the few rows that have a value here, so the indexes omit all others.
for _some in (customers.c.deleting_since, customers.c.rotate_every):
    Index(f"customers_{_some.name}", _some, sqlite_where=_some.is_not(None), postgresql_where=_some.is_not(None))

# API keys that customers send to edges. Only the secret's SHA-256 is stored.
keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer", Text, nullable=False),  # The id.
    Column("sha256", Text, nullable=False),
    Column("start", Text, nullable=False),  # The first characters of the secret, so that people recognize it.
    Column("name", Text),
    *(Column(name, Text) for name in ("scopes", "limits", "budget")),  # JSON.
    Column("created_at", INTEGER, nullable=False),
    Column("expires_at", INTEGER),
    Column("revoked_at", INTEGER),
    Column("revoked_for", Text),
    Column("last_used_on", INTEGER),  # The Unix second when the day begins.
    Column("successor", Text),  # The id of the key that replaces it.
    Column("version", INTEGER, nullable=False),
    Column("next_key", Text),  # The id of the key that will replace it once the customer has collected the secret.
    UniqueConstraint("sha256", name="keys_sha256_key"),
    Index("keys_customer", "customer", "id"),
    sqlite_strict=True,
)
# Jobs search for keys that are due for rotation, that wait for their replacement, or that end after a replacement.
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

# Answers to requests with an Idempotency-Key, for repeated requests (collector/accounts/idempotency.py).
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),  # SHA-256 of the caller and the Idempotency-Key.
    Column("request", Text, nullable=False),  # SHA-256 of the request.
    Column("answer", LargeBinary, nullable=False),  # Encrypted.
    Column("created_at", INTEGER, nullable=False),
    Index("idempotency_created_at", "created_at"),
    sqlite_strict=True,
)

# One row per change that edges must learn, written in the change's transaction. The publisher deletes the row.
directory_outbox = Table(
    "directory_outbox",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # `customer` or `flag`.
    Column("name", Text, nullable=False),
    sqlite_strict=True,
)

# The published directory, one row per version. The hub has a copy (collector/directory/publisher.py).
directory_log = Table(
    "directory_log",
    metadata,
    Column("number", INTEGER, primary_key=True, autoincrement=False),
    Column("token", Text, nullable=False),
    Column("line", LargeBinary, nullable=False),
    Column("left_at", INTEGER),  # The Unix second since which it is not needed; None if it is.
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

# Tokens created over HTTP. Others are in the configuration (collector/accounts/tokens.py).
tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text),  # None if the token belongs to a customer.
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
    Column("ends_at", INTEGER),  # Set once it is replaced.
    Index("token_secrets_token", "token"),
    sqlite_strict=True,
)

# Tables in their own modules, which share this metadata.
