"""The tables of the collector's database. A change here needs a migration (`migrations/versions/`).

Times are Unix seconds, `received` Unix milliseconds. Column types are limited to the types of SQLite's strict tables.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ColumnElement,
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


def strict_table(name: str, *items: SchemaItem, **options: Any) -> Table:
    """Return a table of the collector's database. SQLite enforces its types, as PostgreSQL does."""
    return Table(name, metadata, *items, sqlite_strict=True, **options)


def partial_index(
    name: str, *columns: str | ColumnElement[object], where: str | ColumnElement[bool], unique: bool = False
) -> Index:
    """Return an index of the rows that meet the condition `where`, in either database."""
    condition = text(where) if isinstance(where, str) else where
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


required = partial(Column, nullable=False)
"""A column that is never null."""

edges = strict_table(
    "edges",
    Column("edge", ImpersonalText, primary_key=True),
    Column("region", ImpersonalText),  # None until one of its batches can be read.
    required("seq", INTEGER),  # The watermark: batches up to here are processed.
    Column("hash", ImpersonalText),  # Hash of the last body; None after a gap, because that body is lost.
    Column("since", INTEGER),  # Of the last readable batch.
    Column("until", INTEGER),
    required("received", INTEGER),
    Column("latest", INTEGER),  # The latest minute that the edge has, or had, in the ledger.
    Column("token", ImpersonalText),  # The name of the token that the edge is bound to; None until its first batch.
    required("gap_to", INTEGER, server_default="0"),  # The last seq that an initial gap may reach.
    Column("retired", INTEGER),  # The watermark when it was retired; a later one ends retirement.
    Column("version", ImpersonalText),  # As reported in its last batch; None if not reported.
    Column("sync_age", INTEGER),  # Seconds since it synchronized with the hub, likewise.
    info=closed("edges, which serve many customers", EDGE),
)

batches = strict_table(
    "batches",
    Column("edge", ImpersonalText, primary_key=True),
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    required("last", INTEGER),  # The seq itself, or the last lost seq of a gap.
    required("hash", ImpersonalText),
    required("state", ImpersonalText),
    required("rows", INTEGER),
    Column("since", INTEGER),
    Column("until", INTEGER),
    Column("why", ImpersonalText),  # Reason of a gap, or why the batch is unreadable.
    required("received", INTEGER),
    required("coding", ImpersonalText),
    # The body as received, if it is unreadable.
    required(
        "body",
        LargeBinary,
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
)
NOT_COUNTED = batches.c.state != text(f"'{COUNTED}'")
"""Condition of the index of batches that are not counted. SQLite uses the index only for queries with this condition.
"""
partial_index("batches_odd", batches.c.state, batches.c.edge, batches.c.seq, where=NOT_COUNTED)

series = strict_table(
    "series",
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    required("edge", ImpersonalText),
    required("region", ImpersonalText),
    required("customer", Text, info=CUSTOMER_NAME),
    required("meter", ImpersonalText),
    required("route", ImpersonalText),
    # JSON with sorted names; empty if there are none.
    required("dimensions", Text, server_default="", info=DIMENSION),
    UniqueConstraint("edge", "region", "customer", "meter", "route", "dimensions"),
    Index("series_customer_meter", "customer", "meter"),
    info=of_customers(NAME, FOR_SUMS, rights=READ, copies="backups; Parquet files"),
)

# The dimensions of series again, one row each, for grouping.
series_dimensions = strict_table(
    "series_dimensions",
    Column("name", ImpersonalText, primary_key=True),
    Column("series", INTEGER, primary_key=True, autoincrement=False),
    required("value", Text, info=DIMENSION),
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ, copies="backups; Parquet files"),
    sqlite_with_rowid=False,
)

# The values of a dimension that a customer had in a month. Values above the permitted number count as `~other`.
dimension_values = strict_table(
    "dimension_values",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    Column("month", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the month begins in UTC.
    Column("name", ImpersonalText, primary_key=True),
    Column("value", Text, primary_key=True, info=DIMENSION),
    info=of_customers(NAME, DELETION, DELETES),
    sqlite_with_rowid=False,
)


def build_sum_columns(unit: str) -> Iterator[Column[int]]:
    """Yield the columns of a table with the sum of each series per `unit`: the Unix second when a unit begins."""
    yield Column("series", INTEGER, primary_key=True, autoincrement=False)
    yield Column(unit, INTEGER, primary_key=True, autoincrement=False)
    yield required("value", INTEGER)


# On PostgreSQL each month is a partition, created by `Database.add`.
ledger = strict_table(
    "ledger",
    *build_sum_columns("minute"),
    CheckConstraint(f"value <= {MINUTE_VALUE_MAX}", name="ledger_most"),
    sqlite_with_rowid=False,
    info=of_customers(
        Owner("series", "series"), "400 days (`retention.minutes`)", rights=READ, copies="backups; Parquet files"
    ),
    postgresql_partition_by="RANGE (minute)",
)

# Sums of the rolled-up minutes by hour and by day of UTC. The sum of a day grows until its last hour is rolled up.
hours = strict_table(
    "hours",
    *build_sum_columns("hour"),
    sqlite_with_rowid=False,
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ, copies="backups; Parquet files"),
)
days = strict_table(
    "days",
    *build_sum_columns("day"),
    sqlite_with_rowid=False,
    info=of_customers(Owner("series", "series"), FOR_SUMS, rights=READ),
    postgresql_with={"fillfactor": 70},
)  # A row grows with each of its hours.

# One row. All hours before `hour` are rolled up, and the series of `hour` up to `series`. Rolled-up counts are in
# `hours` and `days`; later counts are only in `ledger`. Retention removes old rows from the finer tables: `ledger`
# starts at `minutes_from`, `hours` at `hours_from`, and `days` has all days.
rollup = strict_table(
    "rollup",
    required("hour", INTEGER),
    required("series", INTEGER),
    required("minutes_from", INTEGER),
    required("hours_from", INTEGER),
    info=shared("how far usage is rolled up", ONE),
)

# At most one row: the least retention of minutes in seconds (null: keep all). On PostgreSQL the owner of the tables
# writes it.
minutes_floor = strict_table(
    "minutes_floor",
    Column("seconds", INTEGER),
    info=closed("for how long the owner keeps minutes", ONE),
)

# Counts how often an edge's late usage changed an hour after it was closed, that is, completely rolled up. An earlier
# export of such an hour is incomplete (collector/exports/).
late_hours = strict_table(
    "late_hours",
    Column("edge", ImpersonalText, primary_key=True),
    Column("hour", INTEGER, primary_key=True, autoincrement=False),
    required("times", INTEGER),
    info=closed("hours of edges", "as `hours`"),
    sqlite_with_rowid=False,
)

# For each edge whose old batches were dropped: the last dropped batch, and totals of the dropped batches, since
# `batches` no longer has them.
checkpoints = strict_table(
    "checkpoints",
    Column("edge", ImpersonalText, primary_key=True),
    required("seq", INTEGER),  # Counted batches up to here are dropped.
    Column("hash", ImpersonalText),  # Hash of the last of them; None after a gap, because it is lost.
    required("batches", INTEGER),  # Number of dropped batches.
    required("minute", INTEGER),  # The latest minute in their rows; -1 if they have no rows.
    info=closed("batches of edges that were dropped", EDGE),
)
dropped = strict_table(
    "dropped",
    *build_sum_columns("day"),
    sqlite_with_rowid=False,
    info=of_customers(Owner("series", "series"), "for good, as `edgeproxy verify` proves sums by it"),
    postgresql_with={"fillfactor": 70},
)

CORRECTIONS = "is_summed > 1 OR value < 0"
"""Condition of events that were corrected, or that correct usage."""
# Events that services reported, each once. The ledger rows of the edge EVENTS are sums of these.
events = strict_table(
    "events",
    Column("source", ImpersonalText, primary_key=True),
    Column("id", Text, primary_key=True, info=END_USER_ID),
    required("customer", Text, info=CUSTOMER_NAME),
    required("meter", ImpersonalText),
    required("value", INTEGER),
    required("time", INTEGER),
    required("is_dated", INTEGER),  # 0 if the time is the time of arrival.
    Column("request_id", Text, info=mark(END_USER_ID, is_cleared=True)),
    # As sent, in the form of `series.dimensions`.
    required("dimensions", Text, server_default="", info=DIMENSION),
    Column("folded", Text, info=DIMENSION),  # Dimensions as counted, if different.
    Column("item", Text, info=mark(END_USER_ID, is_cleared=True)),  # The item that a `unique` meter counts once.
    required("is_summed", INTEGER, server_default="1"),  # 0: a reading; 2 and 3: corrected ones.
    Column("upstream_request_id", Text, info=mark(END_USER_ID, is_cleared=True)),
    Column("replaces", Text, info=END_USER_ID),  # The id of the event that this one corrects.
    Index("events_time", "time"),
    partial_index("events_readings", "customer", "meter", "time", where="is_summed = 0"),
    partial_index("events_corrections", "time", where=CORRECTIONS),
    info=of_customers(NAME, "for good, as each is counted once and explains an invoice", CLEARS, rights=READ),
    sqlite_with_rowid=False,
)

# Rejected events, for operators to inspect.
dead_letters = strict_table(
    "dead_letters",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    required("received", INTEGER),
    required("token", Text, info=OPERATOR),  # The sender.
    required("error", Text, info=FAILURE),
    # JSON.
    required(
        "event",
        Text,
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
)

# The audit log: changes and denied attempts (collector/accounts/audit.py). Rows are only ever added.
audit = strict_table(
    "audit",
    Column("seq", INTEGER, primary_key=True, autoincrement=False),
    required("at", INTEGER),  # Unix milliseconds.
    required("actor", Text, info=mark(OPERATOR, encryption="of a contact a keyed hash")),
    required(
        "origin",
        Text,
        info=personal(
            "IP address, or its network (`privacy`)",
            Subject.OPERATOR,
            "accountability",
            in_clear="an operator's, or its network alone (`privacy.mask_addresses`)",
        ),
    ),
    required("action", ImpersonalText),
    required("target", Text, info=mark(CUSTOMER_NAME, encryption="of a contact a keyed hash")),
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
    required("request_id", ImpersonalText),
    required("hash", ImpersonalText),  # Hash over this row and the previous row's hash.
    Index("audit_actor", "actor", "seq"),
    Index("audit_action", "action", "seq"),
    Index("audit_target", "target", "seq"),
    info=closed(
        "one chain for all; written with the rights of the collector",
        "for good, as who did what: it is a chain, of which nothing can be left out",
    ),
)
# One row: the end of the audit log.
audit_head = strict_table(
    "audit_head",
    required("seq", INTEGER),
    required("hash", ImpersonalText),
    info=closed("the end of that chain", ONE),
)

# Customers. `settings` holds the settings that edges need, in the JSON form of `customers` in edge.yaml.
customers = strict_table(
    "customers",
    Column("id", Text, primary_key=True, info=CUSTOMER_ID),  # UUIDv7, like all ids of accounts.
    required("name", Text, info=CUSTOMER_NAME),  # The customer's name in edges and the ledger.
    Column("external_id", Text, info=mark(EXTERNAL_ID, is_cleared=True, sealed_in="external_id_sealed")),
    required("tier", ImpersonalText),
    required("settings", Text, info=mark(SETTINGS, is_cleared=True)),
    # JSON.
    required(
        "metadata",
        Text,
        info=personal(
            "texts of the operator, such as an alert address",
            Subject.CUSTOMER,
            "the operator's",
            is_cleared=True,
            is_sealed=True,
        ),
    ),
    Column("rotate_every", INTEGER),  # Seconds.
    required("created_at", INTEGER),  # Unix milliseconds, like all times of accounts.
    Column("deleting_since", INTEGER),
    Column("erased_at", INTEGER),  # Since then only the name, the id and the tier remain.
    required("version", INTEGER),  # Grows with each change: the ETag.
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
    required("overdue", INTEGER, server_default="0"),
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
)
# Jobs often search for the few rows that have a value here, so the indexes omit all others.
for _some in (customers.c.deleting_since, customers.c.rotate_every, customers.c.cap_until):
    partial_index(f"customers_{_some.name}", _some, where=_some.is_not(None))

# API keys that customers send to edges. Only the secret's SHA-256 is stored.
keys = strict_table(
    "keys",
    Column("id", ImpersonalText, primary_key=True),
    required("customer", Text, info=CUSTOMER_ID),  # The id.
    required("sha256", Text, info=SECRET),
    required("start", ImpersonalText),  # The first characters of the secret, so that people recognize it.
    Column("name", Text, info=FREE),
    *(Column(name, ImpersonalText) for name in ("scopes", "limits", "budget")),  # JSON.
    required("created_at", INTEGER),
    Column("expires_at", INTEGER),
    Column("revoked_at", INTEGER),
    Column("revoked_for", Text, info=REASON),
    Column("last_used_on", INTEGER),  # The Unix second when the day begins.
    Column("successor", ImpersonalText),  # The id of the key that replaces it.
    required("version", INTEGER),
    # The id of the key that will replace it once the customer has collected the secret.
    Column("next_key", ImpersonalText),
    UniqueConstraint("sha256", name="keys_sha256_key"),
    Index("keys_customer", "customer", "id"),
    info=of_customers(
        ID, DELETION, DELETES, rights=CHANGE, copies="backups; hashes at edges and in the hub, as long as the key works"
    ),
)
# Jobs search for keys that are due for rotation, that wait for their replacement, or that have an end.
for _column, _condition in (
    (keys.c.created_at, keys.c.revoked_at.is_(None) & keys.c.successor.is_(None)),
    (keys.c.next_key, keys.c.next_key.is_not(None)),
    (keys.c.expires_at, keys.c.revoked_at.is_(None) & keys.c.expires_at.is_not(None)),
):
    partial_index(f"keys_{_column.name}", _column, where=_condition)

flags = strict_table(
    "flags",
    Column("name", ImpersonalText, primary_key=True),
    required("settings", Text, info=CUSTOMER_NAME),  # JSON, as under `flags` of edge.yaml.
    required("updated_at", INTEGER),
    required("version", INTEGER),
    info=closed(
        "flags of all",
        "until the flag is deleted",
        copies="backups; edges, hub",
        not_exported="lists of all customers, with the name alone",
    ),
)

# Answers to requests with an Idempotency-Key, for repeated requests (collector/accounts/idempotency.py).
idempotency = strict_table(
    "idempotency",
    Column("key", ImpersonalText, primary_key=True),  # SHA-256 of the caller and the Idempotency-Key.
    required("request", ImpersonalText),  # SHA-256 of the request.
    # Encrypted.
    required(
        "answer",
        LargeBinary,
        info=personal(
            "answer of the API, encrypted",
            Subject.CUSTOMER,
            "answering once",
            encryption="encrypted in any case, by the request's own key",
        ),
    ),
    required("created_at", INTEGER),
    Index("idempotency_created_at", "created_at"),
    info=closed(
        "answers, encrypted, by a hash of who asked; used with the rights of the collector",
        "24 hours",
        not_exported="encrypted by the request's own key, which nobody else has",
    ),
)

# One row per change that edges must learn, written in the change's transaction. The publisher deletes the row.
directory_outbox = strict_table(
    "directory_outbox",
    Column("seq", INTEGER, primary_key=True, autoincrement=True),
    required("kind", ImpersonalText),  # `customer` or `flag`.
    required("name", Text, info=CUSTOMER_NAME),
    info=of_customers(
        None,
        "until it is published, seconds",
        rights=ADD,
        condition=f"kind = 'customer' AND name = {SERVED_NAME}",
        copies="backups; edges, hub",
        not_exported="the name alone, for seconds",
    ),
)

# The published directory, one row per version. The hub has a copy (collector/directory/publisher.py).
directory_log = strict_table(
    "directory_log",
    Column("number", INTEGER, primary_key=True, autoincrement=False),
    required("token", ImpersonalText),
    required("line", LargeBinary, info=IMPERSONAL),
    Column("left_at", INTEGER),  # The Unix second since which it is not needed; None if it is.
    UniqueConstraint("token", name="directory_log_token_key"),
    info=closed("signed versions of the directory, each of all customers", "until a later version replaces it"),
)
directory_parts = strict_table(
    "directory_parts",
    Column("token", ImpersonalText, primary_key=True),
    Column("place", INTEGER, primary_key=True, autoincrement=False),
    required(
        "body",
        LargeBinary,
        info=personal(
            "names, settings and hashes of keys of customers",
            Subject.CUSTOMER,
            "serving the customer",
            in_clear="edges and the hub have the same",
        ),
    ),
    required("created_at", INTEGER),
    info=closed(
        "parts of these",
        "until a later version replaces it; after an erasure 10 minutes after the next one with everybody, which comes "
        "within a minute or two",
        copies="backups; the hub; `directory.db` of edges, encrypted where `cache_key` is set",
        not_exported="all customers, made of `customers` and `keys`",
    ),
)

# Tokens created over HTTP. Others are in the configuration (collector/accounts/tokens.py).
tokens = strict_table(
    "tokens",
    Column("name", Text, primary_key=True, info=OPERATOR),
    Column("role", ImpersonalText),  # None if the token belongs to a customer.
    Column("customer", Text, info=CUSTOMER_NAME),
    Column("edge", ImpersonalText),
    Column("region", ImpersonalText),
    required("created_at", INTEGER),
    required("created_by", Text, info=OPERATOR),
    Column("expires_at", INTEGER),
    info=of_customers(NAME, f"until it is revoked; of a customer {DELETION}", DELETES),
)
token_secrets = strict_table(
    "token_secrets",
    Column("sha256", Text, primary_key=True, info=SECRET),
    required("token", ImpersonalText),  # The name.
    required("created_at", INTEGER),
    Column("ends_at", INTEGER),  # Set once it is replaced.
    Index("token_secrets_token", "token"),
    info=of_customers(Owner("token", "tokens", "name"), "until it is revoked", DELETES),
)

# Tables in their own modules, which share this metadata.
