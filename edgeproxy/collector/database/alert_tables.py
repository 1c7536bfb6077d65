"""The tables of alerts, their deliveries, and anomalies, on the metadata of `schema.py`."""

from sqlalchemy import Column, Index, LargeBinary, Text, UniqueConstraint

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
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

# Alerts. Each is raised only once (collector/alerts/alert.py).
alerts = strict_table(
    "alerts",
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    required("key", Text, info=CUSTOMER_NAME),
    required("kind", ImpersonalText),
    required("severity", ImpersonalText),
    Column("customer", Text, info=CUSTOMER_NAME),  # The name of the customer concerned; None: the service itself.
    required("title", Text, info=MESSAGE),
    required("details", Text, info=MESSAGE),  # JSON.
    required("at", INTEGER),  # Unix milliseconds, like all times of alerts.
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
)

# Deliveries of alerts to channels (collector/alerts/delivery.py).
alert_deliveries = strict_table(
    "alert_deliveries",
    Column("alert", INTEGER, primary_key=True, autoincrement=False),  # The id.
    Column("channel", ImpersonalText, primary_key=True),
    # A recipient of the customer; None: as configured for the channel.
    Column("recipient", Text, info=mark(EMAIL, is_sealed=True)),
    Column("language", ImpersonalText),  # The recipient's language; None: as configured.
    required("state", ImpersonalText),  # `due`, `sent` or `dead`.
    required("attempts", INTEGER),
    required("due_at", INTEGER),  # When it is tried next.
    Column("sent_at", INTEGER),
    Column("error", Text, info=FAILURE),  # Why the last attempt failed.
    Index("alert_deliveries_state", "state", "due_at"),
    info=of_customers(
        Owner("alert", "alerts"), DELETION, DELETES, rights=READ, copies="backups; mailboxes and channels of recipients"
    ),
)

# Handling of alerts, separately for operators and the customer (collector/alert_handling.py).
alert_handling = strict_table(
    "alert_handling",
    Column("alert", INTEGER, primary_key=True, autoincrement=False),  # The id.
    Column("side", ImpersonalText, primary_key=True),  # `operator` or `customer`.
    Column("acknowledged_at", INTEGER),
    Column("acknowledged_by", Text, info=LABEL),
    Column("acknowledged_why", Text, info=REASON),
    Column("assigned_to", Text, info=LABEL),
    Column("assigned_by", Text, info=LABEL),
    Column("assigned_at", INTEGER),
    info=of_customers(Owner("alert", "alerts"), DELETION, DELETES, rights=CHANGE, narrowed="side = 'customer'"),
)

# Kinds of alerts that are muted for a while.
alert_mutes = strict_table(
    "alert_mutes",
    Column("side", ImpersonalText, primary_key=True),
    Column("kind", ImpersonalText, primary_key=True),
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name; empty: alerts that concern no customer.
    required("until", INTEGER),
    required("by", Text, info=LABEL),
    required("muted_at", INTEGER),
    info=of_customers(NAME, DELETION, DELETES, rights=ALL, narrowed="side = 'customer'"),
)

# A customer's usual use of a meter by hour of the week (collector/anomalies/baseline.py).
anomaly_baselines = strict_table(
    "anomaly_baselines",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("meter", ImpersonalText, primary_key=True),
    required("built_at", INTEGER),  # The Unix second.
    required("numbers", LargeBinary, info=IMPERSONAL),
    info=of_customers(NAME, DELETION, DELETES),
)

# Days with unusual use of a meter.
anomalies = strict_table(
    "anomalies",
    Column("id", INTEGER, primary_key=True, autoincrement=True),
    required("customer", Text, info=CUSTOMER_NAME),
    required("meter", ImpersonalText),
    required("day", INTEGER),  # The Unix second when the day begins.
    required("kind", ImpersonalText),  # `volume`, `pattern` or `both`.
    required("severity", ImpersonalText),
    required("details", Text, info=MESSAGE),  # JSON.
    required("found_at", INTEGER),  # The Unix second.
    required("expires_at", INTEGER),  # The Unix second when it is deleted.
    UniqueConstraint("customer", "meter", "day", name="anomalies_customer_key"),
    Index("anomalies_expires_at", "expires_at"),
    info=of_customers(NAME, "until `expires_at`", DELETES, rights=READ),
)

# The time up to which each job has checked usage (collector/anomalies/job.py).
anomaly_progress = strict_table(
    "anomaly_progress",
    Column("name", ImpersonalText, primary_key=True),
    required("until", INTEGER),  # The Unix second.
    info=closed("how far jobs have looked", ONE),
)
