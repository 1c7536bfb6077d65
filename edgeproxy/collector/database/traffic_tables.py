"""The tables of answered requests by minute and by hour, on the metadata of `schema.py`."""

from sqlalchemy import Column, Index, Table, Text

from edgeproxy.collector.database.marks import (
    CHANGE,
    CUSTOMER_NAME,
    DELETES,
    NAME,
    READ,
    TRAFFIC,
    ImpersonalText,
    closed,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, required, strict_table
from edgeproxy.wire.traffic_report import BUCKETS


def build_traffic_table(name: str, content: str, *keys: str) -> Table:
    """Build a table of requests by step, start, edge and `keys`. The row of an hour is the sum of its minutes."""
    return strict_table(
        name,
        Column("step", INTEGER, primary_key=True, autoincrement=False),  # Seconds per row: 60 or 3600.
        Column("start", INTEGER, primary_key=True, autoincrement=False),  # Unix seconds.
        Column("edge", ImpersonalText, primary_key=True),
        *(Column(key, ImpersonalText, primary_key=True) for key in keys),
        required("region", ImpersonalText),
        required("minutes", INTEGER),  # The number of reports in the row.
        required("requests", INTEGER),
        required("rate_limited", INTEGER),
        required("client_errors", INTEGER),
        required("server_errors", INTEGER),
        *(required(f"bucket_{number}", INTEGER) for number in range(BUCKETS)),
        info=closed(content, TRAFFIC),
        sqlite_with_rowid=False,
    )


# All requests of an edge. A row of a minute shows that its report has arrived (collector/traffic/reports.py).
traffic = build_traffic_table("traffic", "what edges answered, of many customers")
# These requests by route, as far as reports name routes.
traffic_routes = build_traffic_table("traffic_routes", "the same by route", "route")
# Errors of customers by minute. Errors that a report does not assign have no customer, route and status.
customer_errors = strict_table(
    "customer_errors",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("start", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the minute begins.
    Column("edge", ImpersonalText, primary_key=True),
    Column("route", ImpersonalText, primary_key=True),
    Column("status", INTEGER, primary_key=True, autoincrement=False),
    Column("by", ImpersonalText, primary_key=True),  # ANSWERERS of wire/traffic_report.py.
    required("region", ImpersonalText),
    required("requests", INTEGER),
    Index("customer_errors_start", "start"),
    info=of_customers(NAME, "7 days", DELETES),
    sqlite_with_rowid=False,
)
# Customers whose limits are being viewed, and the use of limits that edges last reported
# (collector/traffic/limit_usage.py). Rows live for minutes.
limit_watches = strict_table(
    "limit_watches",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    required("until", INTEGER),  # Unix seconds.
    required("operator_until", INTEGER),  # 0: no operator is viewing.
    Index("limit_watches_until", "until"),
    info=of_customers(NAME, "10 minutes", DELETES, rights=CHANGE),
    sqlite_with_rowid=False,
)
limit_usage = strict_table(
    "limit_usage",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),
    Column("edge", ImpersonalText, primary_key=True),
    required("region", ImpersonalText),
    required("at", INTEGER),  # Unix seconds.
    required("limits", ImpersonalText),  # JSON: a list of LimitUsage.
    Index("limit_usage_edge", "edge"),
    info=of_customers(NAME, "10 minutes", DELETES, rights=READ),
    sqlite_with_rowid=False,
)
