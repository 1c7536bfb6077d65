"""The tables of pages: who may sign in, who has, how regions were, and what went wrong.

Times are Unix seconds.
"""

from sqlalchemy import Column, Index, Table, Text

from edgeproxy.collector.database.schema import INTEGER, metadata

# Who may sign in for a customer, by a link that is sent there.
contacts = Table(
    "contacts",
    metadata,
    Column("email", Text, primary_key=True),  # In small letters.
    Column("customer", Text, primary_key=True),  # The id.
    Column("email_sealed", Text),  # Encrypted; then `email` is a keyed hash (sealed_columns.py).
    Column("role", Text, nullable=False, server_default="owner"),  # collector/accounts/contact_roles.py.
    Column("signed_in_at", INTEGER),  # The latest sign-in; None: never.
    Column("language", Text),  # Of the pages at that sign-in.
    Column("domain", Text),  # Of the address; a keyed hash where that is encrypted (sealed_columns.py).
    Column("sensitive_from", INTEGER),  # When it may do what is sensitive; None: it may (contacts.find_sensitive_from).
    Index("contacts_customer", "customer"),
    Index("contacts_domain", "domain"),
    sqlite_strict=True,
)

# Links by which somebody can sign in, once.
sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("sha256", Text, primary_key=True),  # Of what the link has.
    Column("label", Text, nullable=False),  # Who signs in by it.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("customer", Text),  # The name; None: an operator.
    Column("ends_at", INTEGER, nullable=False),
    Column("by_issuer", INTEGER, nullable=False, server_default="0"),  # Whether an issuer vouched for who has it.
    Index("sign_in_links_ends_at", "ends_at"),
    Index("sign_in_links_label", "label"),
    sqlite_strict=True,
)

# Who has signed in.
sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),  # Of what the cookie has.
    Column("label", Text, nullable=False),  # As in the audit log.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("roles", Text, nullable=False),  # JSON.
    Column("customer", Text),  # The name; None: an operator.
    Column("factor_at", INTEGER),  # Of the last sign-in with a second factor; of a contact, of any at the issuer.
    Column("by_issuer", INTEGER, nullable=False, server_default="0"),  # Whether an issuer vouched for a customer's.
    Column("contact_role", Text),  # Of a contact; None: an operator, or a session from before there were roles.
    Column("created_at", INTEGER, nullable=False),
    Column("seen_at", INTEGER, nullable=False),
    Index("sessions_created_at", "created_at"),
    Index("sessions_label", "label"),
    sqlite_strict=True,
)

# Forms that met an ended session, until their sender has signed in again.
held_forms = Table(
    "held_forms",
    metadata,
    Column("sha256", Text, primary_key=True),  # Of what the cookie has.
    Column("label", Text, nullable=False),  # Who sent it.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("customer", Text),  # The name; None: an operator.
    Column("page", Text, nullable=False),  # The path at which the form is.
    Column("action", Text, nullable=False),
    Column("fields", Text, nullable=False),  # JSON, without secrets.
    Column("ends_at", INTEGER, nullable=False),
    Index("held_forms_ends_at", "ends_at"),
    Index("held_forms_label", "label"),
    sqlite_strict=True,
)

# Addresses of people who want to become customers, for an hour.
sign_ups = Table(
    "sign_ups",
    metadata,
    Column("email", Text, primary_key=True),  # In small letters.
    Column("email_sealed", Text),  # Encrypted, as of contacts.
    Column("sha256", Text, nullable=False, unique=True),  # Of what the link has.
    Column("requested_at", INTEGER, nullable=False),
    Column("used_at", INTEGER),
    sqlite_strict=True,
)

# How often each region answered how, by day of UTC.
checks = Table(
    "checks",
    metadata,
    Column("region", Text, primary_key=True),
    Column("day", INTEGER, primary_key=True, autoincrement=False),  # The Unix second at which it begins.
    Column("result", Text, primary_key=True),  # What came of it (collector/pages/checks.py).
    Column("count", INTEGER, nullable=False),
    sqlite_strict=True,
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Text, primary_key=True),  # UUIDv7.
    Column("severity", Text, nullable=False),  # P0 to P3; `maintenance`: it is planned, and so are its times.
    Column("title", Text, nullable=False),
    Column("regions", Text, nullable=False),  # JSON.
    Column("began_at", INTEGER, nullable=False),
    Column("ended_at", INTEGER),
    Index("incidents_began_at", "began_at"),
    sqlite_strict=True,
)
incident_updates = Table(
    "incident_updates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("incident", Text, nullable=False),
    Column("at", INTEGER, nullable=False),
    Column("state", Text, nullable=False),
    Column("message", Text, nullable=False),
    Index("incident_updates_incident", "incident", "id"),
    sqlite_strict=True,
)

# Addresses to which updates of incidents are mailed.
status_subscribers = Table(
    "status_subscribers",
    metadata,
    Column("email", Text, primary_key=True),  # In small letters.
    Column("email_sealed", Text),  # Encrypted, as of contacts.
    Column("token", Text, nullable=False, unique=True),  # Of the links in its mails: it confirms, and unsubscribes.
    Column("requested_at", INTEGER, nullable=False),
    Column("confirmed_at", INTEGER),  # None: nothing but the question was mailed.
    Column("last_update", Text, nullable=False, server_default=""),  # The id of the latest one that was mailed.
    Column("language", Text),  # Of the page on which they subscribed; None: from before it was kept.
    Column("failures", INTEGER, nullable=False, server_default="0"),  # Tries in a row to mail the next update.
    Column("next_try_at", INTEGER),  # None: at once.
    sqlite_strict=True,
)
