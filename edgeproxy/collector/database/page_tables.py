"""The tables of pages: contacts, sessions, results of checks, and incidents.

Times are Unix seconds.
"""

from sqlalchemy import Column, Index, Table, Text

from edgeproxy.collector.database.schema import INTEGER, metadata

# People who may sign in for a customer, through a link mailed to them.
contacts = Table(
    "contacts",
    metadata,
    Column("email", Text, primary_key=True),  # In lower case.
    Column("customer", Text, primary_key=True),  # The id.
    Column("email_sealed", Text),  # Encrypted; then `email` is a keyed hash (sealed_columns.py).
    Column("role", Text, nullable=False, server_default="owner"),  # collector/accounts/contact_roles.py.
    Column("signed_in_at", INTEGER),  # The roles are in collector/accounts/contact_roles.py.
    Column("language", Text),  # Language of the pages at that sign-in.
    Column("domain", Text),  # The domain; a keyed hash if addresses are encrypted (sealed_columns.py).
    Column("sensitive_from", INTEGER),  # Start of sensitive actions; None: now (contacts.find_sensitive_from).
    Index("contacts_customer", "customer"),
    Index("contacts_domain", "domain"),
    sqlite_strict=True,
)

# Sign-in links. Each works once.
sign_in_links = Table(
    "sign_in_links",
    metadata,
    Column("sha256", Text, primary_key=True),  # Hash of the link's secret.
    Column("label", Text, nullable=False),  # The person who signs in with it.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("customer", Text),  # The name; None: an operator.
    Column("ends_at", INTEGER, nullable=False),
    Column("by_issuer", INTEGER, nullable=False, server_default="0"),  # 1: an identity provider verified the person.
    Index("sign_in_links_ends_at", "ends_at"),
    Index("sign_in_links_label", "label"),
    sqlite_strict=True,
)

# Sessions of people who have signed in.
sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),  # Hash of the cookie's secret.
    Column("label", Text, nullable=False),  # As in the audit log.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("roles", Text, nullable=False),  # JSON.
    Column("customer", Text),  # The name; None: an operator.
    Column("factor_at", INTEGER),  # The last sign-in with a second factor; for a contact, any sign-in by issuer.
    Column("by_issuer", INTEGER, nullable=False, server_default="0"),  # 1: an identity provider verified a contact.
    Column("contact_role", Text),  # For a contact; None: an operator, or a session older than roles.
    Column("created_at", INTEGER, nullable=False),
    Column("seen_at", INTEGER, nullable=False),
    Index("sessions_created_at", "created_at"),
    Index("sessions_label", "label"),
    sqlite_strict=True,
)

# Forms sent with an ended session, kept until the sender has signed in again.
held_forms = Table(
    "held_forms",
    metadata,
    Column("sha256", Text, primary_key=True),  # Hash of the cookie's secret.
    Column("label", Text, nullable=False),  # The sender.
    Column("label_sealed", Text),  # Encrypted, as of contacts.
    Column("customer", Text),  # The name; None: an operator.
    Column("page", Text, nullable=False),  # The path of the form's page.
    Column("action", Text, nullable=False),
    Column("fields", Text, nullable=False),  # JSON, without secrets.
    Column("ends_at", INTEGER, nullable=False),
    Index("held_forms_ends_at", "ends_at"),
    Index("held_forms_label", "label"),
    sqlite_strict=True,
)

# Addresses of people who want to become customers, kept for an hour.
sign_ups = Table(
    "sign_ups",
    metadata,
    Column("email", Text, primary_key=True),  # In lower case.
    Column("email_sealed", Text),  # Encrypted, as of contacts.
    Column("sha256", Text, nullable=False, unique=True),  # Hash of the link's secret.
    Column("requested_at", INTEGER, nullable=False),
    Column("used_at", INTEGER),
    sqlite_strict=True,
)

# The number of check results of each region by day of UTC.
checks = Table(
    "checks",
    metadata,
    Column("region", Text, primary_key=True),
    Column("day", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the day begins.
    Column("result", Text, primary_key=True),  # The result (collector/pages/checks.py).
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

# Addresses that get incident updates by mail.
status_subscribers = Table(
    "status_subscribers",
    metadata,
    Column("email", Text, primary_key=True),  # In lower case.
    Column("email_sealed", Text),  # Encrypted, as of contacts.
    Column("token", Text, nullable=False, unique=True),  # In the links of its mails, to confirm or to unsubscribe.
    Column("requested_at", INTEGER, nullable=False),
    Column("confirmed_at", INTEGER),  # None: only the confirmation mail was sent.
    Column("last_update", Text, nullable=False, server_default=""),  # The id of the last update that was mailed.
    Column("language", Text),  # Language of the page at subscription; None: not recorded then.
    Column("failures", INTEGER, nullable=False, server_default="0"),  # Consecutive failures to mail the next update.
    Column("next_try_at", INTEGER),  # None: at once.
    sqlite_strict=True,
)
