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

from edgeproxy.collector.database.marks import (
    ADD,
    CHANGE,
    CLEARS,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    DIMENSION,
    EDGE,
    END_USER_ID,
    EXTERNAL_ID,
    FAILURE,
    FOR_SUMS,
    FREE,
    ID,
    IMPERSONAL,
    NAME,
    ONE,
    OPERATOR,
    READ,
    REASON,
    SECRET,
    SERVED_NAME,
    SETTINGS,
    ImpersonalText,
    Owner,
    Subject,
    closed,
    mark,
    of_customers,
    personal,
    shared,
)

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
    Column("edge", ImpersonalText, primary_key=True),
    Column("region", ImpersonalText),  # None until one of its batches can be read.
    Column("seq", INTEGER, nullable=False),  # The watermark: batches up to here are processed.
    Column("hash", ImpersonalText),  # Hash of the last body; None after a gap, because that body is lost.
    Column("since", INTEGER),  # Of the last readable batch.
    Column("until", INTEGER),
    Column("received", INTEGER, nullable=False),
    Column("latest", INTEGER),  # The latest minute that the edge has, or had, in the ledger.
    Column("token", ImpersonalText),  # The name of the token that the edge is bound to; None until its first batch.
    Column("gap_to", INTEGER, nullable=False, server_default="0"),  # The last seq that an initial gap may reach.
    Column("retired", INTEGER),  # The watermark when it was retired; a later one ends retirement.
    Column("version", ImpersonalText),  # As reported in its last batch; None if not reported.
    Column("sync_age", INTEGER),  # Seconds since it synchronized with the hub, likewise.
    info=closed("edges, which serve many customers", EDGE),
    sqlite_strict=True,
)

batches = Table(
    "batches",
    metadata,
    Column("edge", ImpersonalText, primary_key=True),
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("last", INTEGER, nullable=False),  # The seq itself, or the last lost seq of a gap.
    Column("hash", ImpersonalText, nullable=False),
    Column("state", ImpersonalText, nullable=False),
    Column("rows", INTEGER, nullable=False),
    Column("since", INTEGER),
    Column("until", INTEGER),
    Column("why", ImpersonalText),  # Reason of a gap, or why the batch is unreadable.
    Column("received", INTEGER, nullable=False),
    Column("coding", ImpersonalText, nullable=False),
    # The body as received, if it is unreadable.
    Column(
        "body",
        LargeBinary,
        nullable=False,
        info=personal(
            "names of customers, and values of dimensions",
            Subject.CUSTOMER,
            "proving the ledger",
            in_clear="the chain of batches is over it, and the ledger is proved by it",
        ),
    ),
    # The body that was counted instead, compressed (quarantine.py).
    Column(
        "replay",
        LargeBinary,
        info=personal(
            "names of customers, and values of dimensions",
            Subject.CUSTOMER,
            "proving the ledger",
            in_clear="as of `batches.body`",
        ),
    ),
    # Dimensions as counted, for rows with too many dimension values: JSON by the row's index (values.py).
    Column("folded", Text, info=DIMENSION),
    info=closed(
        "what edges shipped, each batch of many customers",
        "100 days (`retention.batches`); those in quarantine until they are replayed",
        copies="backups; the edge's spool, for 7 days",
        not_exported="counts of all customers; this one's are in `ledger`, `hours` and `days`",
    ),
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
    Column("edge", ImpersonalText, nullable=False),
    Column("region", ImpersonalText, nullable=False),
    Column("customer", Text, nullable=False, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, nullable=False),
    Column("route", ImpersonalText, nullable=False),
    # JSON with sorted names; empty if there are none.
    Column("dimensions", Text, nullable=False, server_default="", info=DIMENSION),
    UniqueConstraint("edge", "region", "customer", "meter", "route", "dimensions"),
    Index("series_customer_meter", "customer", "meter"),
    info=of_customers(NAME, FOR_SUMS, rights=READ, copies="backups; Parquet files"),
    sqlite_strict=True,
)

# The dimensions of series again, one row each, for grouping.
series_dimensions = Table(
    "series_dimensions",
    metadata,
    Column("name", ImpersonalText, primary_key=True),
    Column("series", INTEGER, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False, info=DIMENSION),
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ, copies="backups; Parquet files"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# The values of a dimension that a customer had in a month. Values above the permitted number count as `~other`.
dimension_values = Table(
    "dimension_values",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    Column("month", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the month begins in UTC.
    Column("name", ImpersonalText, primary_key=True),
    Column("value", Text, primary_key=True, info=DIMENSION),
    info=of_customers(NAME, DELETION, DELETES),
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
    info=of_customers(
        Owner("series", "series"), "400 days (`retention.minutes`)", rights=READ, copies="backups; Parquet files"
    ),
    postgresql_partition_by="RANGE (minute)",
)

# Sums of the rolled-up minutes by hour and by day of UTC. The sum of a day grows until its last hour is rolled up.
hours = build_sums_table(
    "hours",
    "hour",
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ, copies="backups; Parquet files"),
)
days = build_sums_table(
    "days",
    "day",
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ),
    postgresql_with={"fillfactor": 70},
)  # A row grows with each of its hours.

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
    info=shared("how far usage is rolled up", ONE),
    sqlite_strict=True,
)

# At most one row: the least retention of minutes in seconds (null: keep all). On PostgreSQL the owner of the tables
# writes it.
minutes_floor = Table(
    "minutes_floor",
    metadata,
    Column("seconds", INTEGER),
    info=closed("for how long the owner keeps minutes", ONE),
    sqlite_strict=True,
)

# Counts how often an edge's late usage changed an hour after it was closed, that is, completely rolled up. An earlier
# export of such an hour is incomplete (collector/exports/).
late_hours = Table(
    "late_hours",
    metadata,
    Column("edge", ImpersonalText, primary_key=True),
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    Column("times", INTEGER, nullable=False),
    info=closed("hours of edges", "as `hours`"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# For each edge whose old batches were dropped: the last dropped batch, and totals of the dropped batches, since
# `batches` no longer has them.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("edge", ImpersonalText, primary_key=True),
    Column("seq", INTEGER, nullable=False),  # Counted batches up to here are dropped.
    Column("hash", ImpersonalText),  # Hash of the last of them; None after a gap, because it is lost.
    Column("batches", INTEGER, nullable=False),  # Number of dropped batches.
    Column("minute", INTEGER, nullable=False),  # The latest minute in their rows; -1 if they have no rows.
    info=closed("batches of edges that were dropped", EDGE),
    sqlite_strict=True,
)
dropped = build_sums_table(
    "dropped",
    "day",
    info=of_customers(Owner("series", "series"), "for good, as `edgeproxy verify` proves sums by it"),
    postgresql_with={"fillfactor": 70},
)

CORRECTIONS = "is_summed > 1 OR value < 0"
"""Condition of events that were corrected, or that correct usage."""
# Events that services reported, each once. The ledger rows of the edge EVENTS are sums of these.
events = Table(
    "events",
    metadata,
    Column("source", ImpersonalText, primary_key=True),
    Column("id", Text, primary_key=True, info=END_USER_ID),
    Column("customer", Text, nullable=False, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, nullable=False),
    Column("value", INTEGER, nullable=False),
    Column("time", INTEGER, nullable=False),
    Column("is_dated", INTEGER, nullable=False),  # 0 if the time is the time of arrival.
    Column("request_id", Text, info=mark(END_USER_ID, is_cleared=True)),
    # As sent, in the form of `series.dimensions`.
    Column("dimensions", Text, nullable=False, server_default="", info=DIMENSION),
    Column("folded", Text, info=DIMENSION),  # Dimensions as counted, if different.
    Column("item", Text, info=mark(END_USER_ID, is_cleared=True)),  # The item that a `unique` meter counts once.
    Column("is_summed", INTEGER, nullable=False, server_default="1"),  # 0: a reading; 2 and 3: corrected ones.
    Column("upstream_request_id", Text, info=mark(END_USER_ID, is_cleared=True)),
    Column("replaces", Text, info=END_USER_ID),  # The id of the event that this one corrects.
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
    info=of_customers(NAME, "for good, as each is counted once and explains an invoice", CLEARS, rights=READ),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)

# Rejected events, for operators to inspect.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    Column("received", INTEGER, nullable=False),
    Column("token", Text, nullable=False, info=OPERATOR),  # The sender.
    Column("error", Text, nullable=False, info=FAILURE),
    # JSON.
    Column(
        "event",
        Text,
        nullable=False,
        info=personal(
            "a rejected event",
            Subject.END_USER,
            "correcting it",
            in_clear="usage that nobody owns yet, as services report it",
        ),
    ),
    info=closed(
        "events that were rejected, whose customer may be anything",
        "until somebody replays or discards it",
        copies="backups; erasure deletes those that name the customer, also encoded or compressed",
    ),
    sqlite_strict=True,
)

# The audit log: changes and denied attempts (collector/accounts/audit.py). Rows are only ever added.
audit = Table(
    "audit",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    Column("at", INTEGER, nullable=False),  # Unix milliseconds.
    Column("actor", Text, nullable=False, info=mark(OPERATOR, encryption="of a contact a keyed hash")),
    Column(
        "origin",
        Text,
        nullable=False,
        info=personal(
            "IP address, or its network (`privacy`)",
            Subject.OPERATOR,
            "accountability",
            in_clear="an operator's, or its network alone (`privacy.mask_addresses`)",
        ),
    ),
    Column("action", ImpersonalText, nullable=False),
    Column("target", Text, nullable=False, info=mark(CUSTOMER_NAME, encryption="of a contact a keyed hash")),
    # JSON.
    Column(
        "before",
        Text,
        info=personal(
            "what was changed, without secrets",
            Subject.CUSTOMER,
            "accountability",
            encryption="of changes of a customer encrypted",
        ),
    ),
    Column(
        "after",
        Text,
        info=personal(
            "what was changed, without secrets",
            Subject.CUSTOMER,
            "accountability",
            encryption="of changes of a customer encrypted",
        ),
    ),
    Column("request_id", ImpersonalText, nullable=False),
    Column("hash", ImpersonalText, nullable=False),  # Hash over this row and the previous row's hash.
    Index("audit_actor", "actor", "seq"),
    Index("audit_action", "action", "seq"),
    Index("audit_target", "target", "seq"),
    info=closed(
        "one chain for all; written with the rights of the collector",
        "for good, as who did what: it is a chain, of which nothing can be left out",
    ),
    sqlite_strict=True,
)
# One row: the end of the audit log.
audit_head = Table(
    "audit_head",
    metadata,
    Column("seq", INTEGER, nullable=False),
    Column("hash", ImpersonalText, nullable=False),
    info=closed("the end of that chain", ONE),
    sqlite_strict=True,
)

# Customers. `settings` holds the settings that edges need, in the JSON form of `customers` in edge.yaml.
customers = Table(
    "customers",
    metadata,
    Column("id", Text, primary_key=True, info=CUSTOMER_ID),  # UUIDv7, like all ids of accounts.
    Column("name", Text, nullable=False, info=CUSTOMER_NAME),  # The customer's name in edges and the ledger.
    Column("external_id", Text, info=mark(EXTERNAL_ID, is_cleared=True, sealed_in="external_id_sealed")),
    Column("tier", ImpersonalText, nullable=False),
    Column("settings", Text, nullable=False, info=mark(SETTINGS, is_cleared=True)),
    # JSON.
    Column(
        "metadata",
        Text,
        nullable=False,
        info=personal(
            "texts of the operator, such as an alert address",
            Subject.CUSTOMER,
            "the operator's",
            is_cleared=True,
            is_sealed=True,
        ),
    ),
    Column("rotate_every", INTEGER),  # Seconds.
    Column("created_at", INTEGER, nullable=False),  # Unix milliseconds, like all times of accounts.
    Column("deleting_since", INTEGER),
    Column("erased_at", INTEGER),  # Since then only the name, the id and the tier remain.
    Column("version", INTEGER, nullable=False),  # Grows with each change: the ETag.
    # Encrypted; then `external_id` is a keyed hash (sealed_columns.py).
    Column("external_id_sealed", Text, info=mark(EXTERNAL_ID, is_cleared=True)),
    Column("currency", ImpersonalText),  # The permanent currency of charges; NULL until one is chosen.
    # The name for people if `name` is a pseudonym.
    Column("display_name", Text, info=mark(CUSTOMER_NAME, is_cleared=True)),
    # A JWK: secrets of new keys are encrypted to it (collector/accounts/public_keys.py).
    Column(
        "public_key", Text, info=mark(FREE, is_cleared=True, in_clear="a public key, and what the customer calls it")
    ),
    # Figures for the list of customers, copies of facts with another home (collector/accounts/list_figures.py).
    Column("plan", ImpersonalText),  # The name without the version; NULL without a plan.
    Column("spent", INTEGER),  # The cost of the period at `spent_at`, in the smallest unit of the currency.
    Column("spent_at", INTEGER),  # Unix seconds, as the other times of these figures.
    Column("overdue", INTEGER, nullable=False, server_default="0"),
    Column("cap_used", INTEGER),  # Hundredths of a percent of the day's spending cap.
    Column("cap_until", INTEGER),
    Column("last_call_on", INTEGER),  # The start of the day when one of its keys was last used.
    UniqueConstraint("name", name="customers_name_key"),
    UniqueConstraint("external_id", name="customers_external_id_key"),
    Index("customers_spent", text("coalesce(spent, -1)"), "id"),
    Index("customers_overdue", "overdue", "id"),
    Index("customers_cap_used", text("coalesce(cap_used, -1)"), "id"),
    Index("customers_last_call", text("coalesce(last_call_on, 0)"), "id"),
    Index("customers_display_name", "display_name", unique=True),
    info=of_customers(
        Owner("id", "id"),
        f"{DELETION}; id, name and tier for good",
        CLEARS,
        rights=("SELECT", "UPDATE"),
        condition=f"name = {SERVED_NAME}",
        copies="backups; edges and hub have settings, and name or pseudonym; Stripe has the name",
    ),
    sqlite_strict=True,
)
# Jobs often search for the few rows that have a value here, so the indexes omit all others.
for _some in (customers.c.deleting_since, customers.c.rotate_every, customers.c.cap_until):
    Index(f"customers_{_some.name}", _some, sqlite_where=_some.is_not(None), postgresql_where=_some.is_not(None))

# API keys that customers send to edges. Only the secret's SHA-256 is stored.
keys = Table(
    "keys",
    metadata,
    Column("id", ImpersonalText, primary_key=True),
    Column("customer", Text, nullable=False, info=CUSTOMER_ID),  # The id.
    Column("sha256", Text, nullable=False, info=SECRET),
    Column("start", ImpersonalText, nullable=False),  # The first characters of the secret, so that people recognize it.
    Column("name", Text, info=FREE),
    *(Column(name, ImpersonalText) for name in ("scopes", "limits", "budget")),  # JSON.
    Column("created_at", INTEGER, nullable=False),
    Column("expires_at", INTEGER),
    Column("revoked_at", INTEGER),
    Column("revoked_for", Text, info=REASON),
    Column("last_used_on", INTEGER),  # The Unix second when the day begins.
    Column("successor", ImpersonalText),  # The id of the key that replaces it.
    Column("version", INTEGER, nullable=False),
    # The id of the key that will replace it once the customer has collected the secret.
    Column("next_key", ImpersonalText),
    UniqueConstraint("sha256", name="keys_sha256_key"),
    Index("keys_customer", "customer", "id"),
    info=of_customers(
        ID, DELETION, DELETES, rights=CHANGE, copies="backups; hashes at edges and in the hub, as long as the key works"
    ),
    sqlite_strict=True,
)
# Jobs search for keys that are due for rotation, that wait for their replacement, or that have an end.
for _column, _condition in (
    (keys.c.created_at, keys.c.revoked_at.is_(None) & keys.c.successor.is_(None)),
    (keys.c.next_key, keys.c.next_key.is_not(None)),
    (keys.c.expires_at, keys.c.revoked_at.is_(None) & keys.c.expires_at.is_not(None)),
):
    Index(f"keys_{_column.name}", _column, sqlite_where=_condition, postgresql_where=_condition)

flags = Table(
    "flags",
    metadata,
    Column("name", ImpersonalText, primary_key=True),
    Column("settings", Text, nullable=False, info=CUSTOMER_NAME),  # JSON, as under `flags` of edge.yaml.
    Column("updated_at", INTEGER, nullable=False),
    Column("version", INTEGER, nullable=False),
    info=closed(
        "flags of all",
        "until the flag is deleted",
        copies="backups; edges, hub",
        not_exported="lists of all customers, with the name alone",
    ),
    sqlite_strict=True,
)

# Answers to requests with an Idempotency-Key, for repeated requests (collector/accounts/idempotency.py).
idempotency = Table(
    "idempotency",
    metadata,
    Column("key", ImpersonalText, primary_key=True),  # SHA-256 of the caller and the Idempotency-Key.
    Column("request", ImpersonalText, nullable=False),  # SHA-256 of the request.
    # Encrypted.
    Column(
        "answer",
        LargeBinary,
        nullable=False,
        info=personal(
            "answer of the API, encrypted",
            Subject.CUSTOMER,
            "answering once",
            encryption="encrypted in any case, by the request's own key",
        ),
    ),
    Column("created_at", INTEGER, nullable=False),
    Index("idempotency_created_at", "created_at"),
    info=closed(
        "answers, encrypted, by a hash of who asked; used with the rights of the collector",
        "24 hours",
        not_exported="encrypted by the request's own key, which nobody else has",
    ),
    sqlite_strict=True,
)

# One row per change that edges must learn, written in the change's transaction. The publisher deletes the row.
directory_outbox = Table(
    "directory_outbox",
    metadata,
    Column("seq", INTEGER, primary_key=True, autoincrement=True),
    Column("kind", ImpersonalText, nullable=False),  # `customer` or `flag`.
    Column("name", Text, nullable=False, info=CUSTOMER_NAME),
    info=of_customers(
        None,
        "until it is published, seconds",
        rights=ADD,
        condition=f"kind = 'customer' AND name = {SERVED_NAME}",
        copies="backups; edges, hub",
        not_exported="the name alone, for seconds",
    ),
    sqlite_strict=True,
)

# The published directory, one row per version. The hub has a copy (collector/directory/publisher.py).
directory_log = Table(
    "directory_log",
    metadata,
    Column("number", INTEGER, primary_key=True, autoincrement=False),
    Column("token", ImpersonalText, nullable=False),
    Column("line", LargeBinary, nullable=False, info=IMPERSONAL),
    Column("left_at", INTEGER),  # The Unix second since which it is not needed; None if it is.
    UniqueConstraint("token", name="directory_log_token_key"),
    info=closed("signed versions of the directory, each of all customers", "until a later version replaces it"),
    sqlite_strict=True,
)
directory_parts = Table(
    "directory_parts",
    metadata,
    Column("token", ImpersonalText, primary_key=True),
    Column("place", INTEGER, primary_key=True, autoincrement=False),
    Column(
        "body",
        LargeBinary,
        nullable=False,
        info=personal(
            "names, settings and hashes of keys of customers",
            Subject.CUSTOMER,
            "serving the customer",
            in_clear="edges and the hub have the same",
        ),
    ),
    Column("created_at", INTEGER, nullable=False),
    info=closed(
        "parts of these",
        "until a later version replaces it; after an erasure 10 minutes after the next one with everybody, which comes "
        "within a minute or two",
        copies="backups; the hub; `directory.db` of edges, encrypted where `cache_key` is set",
        not_exported="all customers, made of `customers` and `keys`",
    ),
    sqlite_strict=True,
)

# Tokens created over HTTP. Others are in the configuration (collector/accounts/tokens.py).
tokens = Table(
    "tokens",
    metadata,
    Column("name", Text, primary_key=True, info=OPERATOR),
    Column("role", ImpersonalText),  # None if the token belongs to a customer.
    Column("customer", Text, info=CUSTOMER_NAME),
    Column("edge", ImpersonalText),
    Column("region", ImpersonalText),
    Column("created_at", INTEGER, nullable=False),
    Column("created_by", Text, nullable=False, info=OPERATOR),
    Column("expires_at", INTEGER),
    info=of_customers(NAME, f"until it is revoked; of a customer {DELETION}", DELETES),
    sqlite_strict=True,
)
token_secrets = Table(
    "token_secrets",
    metadata,
    Column("sha256", Text, primary_key=True, info=SECRET),
    Column("token", ImpersonalText, nullable=False),  # The name.
    Column("created_at", INTEGER, nullable=False),
    Column("ends_at", INTEGER),  # Set once it is replaced.
    Index("token_secrets_token", "token"),
    info=of_customers(Owner("token", "tokens", "name"), "until it is revoked", DELETES),
    sqlite_strict=True,
)

# Tables in their own modules, which share this metadata.
