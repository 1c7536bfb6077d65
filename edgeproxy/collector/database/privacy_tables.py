"""The tables of requests of people about their data, and of secrets and pseudonyms of end users, on the metadata of
`schema.py`."""

from sqlalchemy import Column, Index, LargeBinary, Table, Text, text

from edgeproxy.collector.database.schema import INTEGER, events, metadata

# What people have asked, and what was done (collector/privacy/requests.py). Times are Unix milliseconds.
privacy_requests = Table(
    "privacy_requests",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7.
    Column("customer", Text),  # The id of whom it is about; None: nobody who is known.
    Column("kind", Text, nullable=False),
    Column("law", Text, nullable=False),
    Column("person", Text),  # Who asks; None once the customer is erased.
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

# By which end users of a customer are hashed (collector/accounts/end_users.py).
end_user_secrets = Table(
    "end_user_secrets",
    metadata,
    Column("customer", Text, primary_key=True),  # As the ledger knows it.
    Column("secret", LargeBinary, nullable=False),
    sqlite_strict=True,
)

# Whose a pseudonym in dimensions is (collector/accounts/end_user_pseudonyms.py): a row for each person, until it is
# erased.
end_users = Table(
    "end_users",
    metadata,
    Column("hash", Text, primary_key=True),  # Of the name, by the customer's secret.
    Column("customer", Text, nullable=False),  # As the ledger knows it.
    Column("pseudonym", Text, nullable=False),
    Index("end_users_customer", "customer"),
    sqlite_strict=True,
)

# What an erasure clears, by customer: events without any of it cost the index nothing.
PERSONAL = text("request_id IS NOT NULL OR upstream_request_id IS NOT NULL OR item IS NOT NULL")
Index("events_personal", events.c.customer, sqlite_where=PERSONAL, postgresql_where=PERSONAL)
