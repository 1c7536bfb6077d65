"""The tables of alerts, their deliveries, and anomalies, on the metadata of `schema.py`."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text, UniqueConstraint

from edgeproxy.collector.database.marks import (
    ALL,
    CHANGE,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    EMAIL,
    FAILURE,
    IMPERSONAL,
    LABEL,
    MESSAGE,
    NAME,
    ONE,
    READ,
    REASON,
    ImpersonalText,
    Owner,
    closed,
    mark,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, metadata

# Alerts. Each is raised only once (collector/alerts/alert.py).
alerts = Table(
    "alerts",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, info=CUSTOMER_NAME),
    Column("kind", ImpersonalText, nullable=False),
    Column("severity", ImpersonalText, nullable=False),
    Column("customer", Text, info=CUSTOMER_NAME),  # The name of the customer concerned; None: the service itself.
    Column("title", Text, nullable=False, info=MESSAGE),
    Column("details", Text, nullable=False, info=MESSAGE),  # JSON.
    Column("at", INTEGER, nullable=False),  # Unix milliseconds, like all times of alerts.
    Column("routed_at", INTEGER),  # When its deliveries were created; None until then.
    Column("escalated_at", INTEGER),  # When it was also sent to the next severity's channels.
    UniqueConstraint("key", name="alerts_key_key"),
    Index("alerts_customer", "customer", "id"),
    Index("alerts_routed", "routed_at"),
    Index("alerts_kind", "kind", "at"),
    Index("alerts_severity", "severity", "id"),
    info=of_customers(
        NAME,
        f"for good, as what operators were told; of a customer {DELETION}",
        DELETES,
        rights=READ,
        copies="backups; mailboxes and channels of recipients",
    ),
    sqlite_strict=True,
)

# Deliveries of alerts to channels (collector/alerts/delivery.py).
alert_deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("alert", INTEGER, primary_key=True, autoincrement=False),  # The id.
    Column("channel", ImpersonalText, primary_key=True),
    # A recipient of the customer; None: as configured for the channel.
    Column("recipient", Text, info=mark(EMAIL, is_sealed=True)),
    Column("language", ImpersonalText),  # The recipient's language; None: as configured.
    Column("state", ImpersonalText, nullable=False),  # `due`, `sent` or `dead`.
    Column("attempts", INTEGER, nullable=False),
    Column("due_at", INTEGER, nullable=False),  # When it is tried next.
    Column("sent_at", INTEGER),
    Column("error", Text, info=FAILURE),  # Why the last attempt failed.
    Index("alert_deliveries_state", "state", "due_at"),
    info=of_customers(
        Owner("alert", "alerts"), DELETION, DELETES, rights=READ, copies="backups; mailboxes and channels of recipients"
    ),
    sqlite_strict=True,
)

# Handling of alerts, separately for operators and the customer (collector/alert_handling.py).
alert_handling = Table(
    "alert_handling",
    metadata,
    Column("alert", INTEGER, primary_key=True, autoincrement=False),  # The id.
    Column("side", ImpersonalText, primary_key=True),  # `operator` or `customer`.
    Column("acknowledged_at", INTEGER),
    Column("acknowledged_by", Text, info=LABEL),
    Column("acknowledged_why", Text, info=REASON),
    Column("assigned_to", Text, info=LABEL),
    Column("assigned_by", Text, info=LABEL),
    Column("assigned_at", INTEGER),
    info=of_customers(Owner("alert", "alerts"), DELETION, DELETES, rights=CHANGE, narrowed="side = 'customer'"),
    sqlite_strict=True,
)

# Kinds of alerts that are muted for a while.
alert_mutes = Table(
    "alert_mutes",
    metadata,
    Column("side", ImpersonalText, primary_key=True),
    Column("kind", ImpersonalText, primary_key=True),
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name; empty: alerts that concern no customer.
    Column("until", INTEGER, nullable=False),
    Column("by", Text, nullable=False, info=LABEL),
    Column("muted_at", INTEGER, nullable=False),
    info=of_customers(NAME, DELETION, DELETES, rights=ALL, narrowed="side = 'customer'"),
    sqlite_strict=True,
)

# A customer's usual use of a meter by hour of the week (collector/anomalies/baseline.py).
anomaly_baselines = Table(
    "anomaly_baselines",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    Column("built_at", INTEGER, nullable=False),  # The Unix second.
    Column("numbers", LargeBinary, nullable=False, info=IMPERSONAL),
    info=of_customers(NAME, DELETION, DELETES),
    sqlite_strict=True,
)

# Days with unusual use of a meter.
anomalies = Table(
    "anomalies",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    Column("customer", Text, nullable=False, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, nullable=False),
    Column("day", INTEGER, nullable=False),  # The Unix second when the day begins.
    Column("kind", ImpersonalText, nullable=False),  # `volume`, `pattern` or `both`.
    Column("severity", ImpersonalText, nullable=False),
    Column("details", Text, nullable=False, info=MESSAGE),  # JSON.
    Column("found_at", INTEGER, nullable=False),  # The Unix second.
    Column("expires_at", INTEGER, nullable=False),  # The Unix second when it is deleted.
    UniqueConstraint("customer", "meter", "day", name="anomalies_customer_key"),
    Index("anomalies_expires_at", "expires_at"),
    info=of_customers(NAME, "until `expires_at`", DELETES, rights=READ),
    sqlite_strict=True,
)

# The time up to which each job has checked usage (collector/anomalies/job.py).
anomaly_progress = Table(
    "anomaly_progress",
    metadata,
    Column("name", ImpersonalText, primary_key=True),
    Column("until", INTEGER, nullable=False),  # The Unix second.
    info=closed("how far jobs have looked", ONE),
    sqlite_strict=True,
)
