"""The tables of privacy requests, and of secrets and pseudonyms of end users.

They are on the metadata of `schema.py`.
"""

from sqlalchemy import Column, Index, LargeBinary, Table, Text, text

from edgeproxy.collector.database.schema import INTEGER, events, metadata

# Privacy requests and their handling (collector/privacy/requests.py). Times are Unix milliseconds.
privacy_requests = Table(
    "privacy_requests",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7.
    Column("customer", Text),  # The id of the customer concerned; None: no known customer.
    Column("kind", Text, nullable=False),
    Column("law", Text, nullable=False),
    Column("person", Text),  # The requester; None once the customer is erased.
    Column("state", Text, nullable=False),
    Column("steps", Text),  # JSON; None once the customer is erased.
    Column("requested_at", INTEGER, nullable=False),
    Column("due_at", INTEGER, nullable=False),
    Column("ended_at", INTEGER),
    Index("privacy_requests_customer", "customer"),
    Index(
        "privacy_requests_open",
        "id",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
    sqlite_strict=True,
)

# The secrets for hashing a customer's end users (collector/accounts/end_users.py).
end_user_secrets = Table(
    "end_user_secrets",
    metadata,
    Column("customer", Text, primary_key=True),  # The name in the ledger.
    Column("secret", LargeBinary, nullable=False),
    sqlite_strict=True,
)

# The end user behind each pseudonym in dimensions (collector/accounts/end_user_pseudonyms.py): one row per person,
# until the person is erased.
end_users = Table(
    "end_users",
    metadata,
    Column("hash", Text, primary_key=True),  # Hash of the name, keyed by the customer's secret.
    Column("customer", Text, nullable=False),  # The name in the ledger.
    Column("pseudonym", Text, nullable=False),
    Index("end_users_customer", "customer"),
    sqlite_strict=True,
)

# Erasure clears these columns of a customer's events. The index has no entry for events without them.
PERSONAL = text("request_id IS NOT NULL OR upstream_request_id IS NOT NULL OR item IS NOT NULL")
Index("events_personal", events.c.customer, sqlite_where=PERSONAL, postgresql_where=PERSONAL)
