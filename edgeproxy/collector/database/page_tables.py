"""The tables of pages: contacts, sessions, results of checks, and incidents.

Times are Unix seconds.
"""

from sqlalchemy import Column, Index, Text

from edgeproxy.collector.database.marks import (
    ALL,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    EMAIL,
    FREE,
    ID,
    IMPERSONAL,
    LABEL,
    NAME,
    PUBLIC,
    REASON,
    SECRET,
    SUBSCRIBER,
    ImpersonalText,
    closed,
    mark,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

BINDS_CIPHERTEXTS = mark(IMPERSONAL, binds_ciphertexts=True)

# People who may sign in for a customer, through a link mailed to them.
contacts = strict_table(
    "contacts",
    Column("email", Text, primary_key=True, info=mark(EMAIL, sealed_in="email_sealed")),  # In lower case.
    Column("customer", Text, primary_key=True, info=CUSTOMER_ID),  # The id.
    Column("email_sealed", Text, info=EMAIL),  # Encrypted; then `email` is a keyed hash (sealed_columns.py).
    required("role", ImpersonalText, server_default="owner"),  # collector/accounts/contact_roles.py.
    Column("signed_in_at", INTEGER),  # The roles are in collector/accounts/contact_roles.py.
    Column("language", ImpersonalText),  # Language of the pages at that sign-in.
    # The domain; a keyed hash if addresses are encrypted (sealed_columns.py).
    Column("domain", Text, info=mark(EMAIL, domain_of="email")),
    Column("sensitive_from", INTEGER),  # Start of sensitive actions; None: now (contacts.find_sensitive_from).
    Index("contacts_customer", "customer"),
    Index("contacts_domain", "domain"),
    info=of_customers(ID, DELETION, DELETES, rights=ALL),
)

# Sign-in links. Each works once.
sign_in_links = strict_table(
    "sign_in_links",
    Column("sha256", Text, primary_key=True, info=SECRET),  # Hash of the link's secret.
    # The person who signs in with it.
    required("label", Text, info=mark(LABEL, sealed_in="label_sealed")),
    Column("label_sealed", Text, info=LABEL),  # Encrypted, as of contacts.
    Column("customer", Text, info=CUSTOMER_NAME),  # The name; None: an operator.
    required("ends_at", INTEGER),
    required("by_issuer", INTEGER, server_default="0"),  # 1: an identity provider verified the person.
    Index("sign_in_links_ends_at", "ends_at"),
    Index("sign_in_links_label", "label"),
    info=of_customers(NAME, "15 minutes; an hour for an operator's first, 7 days for an invitation", DELETES),
)

# Sessions of people who have signed in.
sessions = strict_table(
    "sessions",
    Column("sha256", Text, primary_key=True, info=SECRET),  # Hash of the cookie's secret.
    required("label", Text, info=mark(LABEL, sealed_in="label_sealed")),  # As in the audit log.
    Column("label_sealed", Text, info=LABEL),  # Encrypted, as of contacts.
    required("roles", ImpersonalText),  # JSON.
    Column("customer", Text, info=CUSTOMER_NAME),  # The name; None: an operator.
    Column("factor_at", INTEGER),  # The last sign-in with a second factor; for a contact, any sign-in by issuer.
    required("by_issuer", INTEGER, server_default="0"),  # 1: an identity provider verified a contact.
    Column("contact_role", ImpersonalText),  # For a contact; None: an operator, or a session older than roles.
    required("created_at", INTEGER),
    required("seen_at", INTEGER),
    Index("sessions_created_at", "created_at"),
    Index("sessions_label", "label"),
    info=of_customers(NAME, "8 hours", DELETES),
)

# Forms sent with an ended session, kept until the sender has signed in again.
held_forms = strict_table(
    "held_forms",
    Column("sha256", Text, primary_key=True, info=SECRET),  # Hash of the cookie's secret.
    required("label", Text, info=mark(LABEL, sealed_in="label_sealed")),  # The sender.
    Column("label_sealed", Text, info=LABEL),  # Encrypted, as of contacts.
    Column("customer", Text, info=CUSTOMER_NAME),  # The name; None: an operator.
    required("page", Text, info=mark(FREE, is_sealed=True)),  # The path of the form's page.
    required("action", ImpersonalText),
    required("fields", Text, info=mark(FREE, is_sealed=True)),  # JSON, without secrets.
    required("ends_at", INTEGER),
    Index("held_forms_ends_at", "ends_at"),
    Index("held_forms_label", "label"),
    info=of_customers(NAME, "10 minutes", DELETES),
)

# Addresses of people who want to become customers, kept for an hour.
sign_ups = strict_table(
    "sign_ups",
    Column("email", Text, primary_key=True, info=mark(SUBSCRIBER, sealed_in="email_sealed")),  # In lower case.
    Column("email_sealed", Text, info=SUBSCRIBER),  # Encrypted, as of contacts.
    required("sha256", Text, unique=True, info=BINDS_CIPHERTEXTS),  # Hash of the link's secret.
    required("requested_at", INTEGER),
    Column("used_at", INTEGER),
    info=closed("addresses of people who are no customers yet", "an hour, then to the next sign-up"),
)

# The number of check results of each region by day of UTC.
checks = strict_table(
    "checks",
    Column("region", ImpersonalText, primary_key=True),
    Column("day", INTEGER, primary_key=True, autoincrement=False),  # The Unix second when the day begins.
    Column("result", ImpersonalText, primary_key=True),  # The result (collector/pages/checks.py).
    required("count", INTEGER),
    info=closed("how regions answered", "400 days"),
)

incidents = strict_table(
    "incidents",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    required("severity", ImpersonalText),  # P0 to P3; `maintenance`: it is planned, and so are its times.
    required("title", Text, info=REASON),
    required("regions", ImpersonalText),  # JSON.
    required("began_at", INTEGER),
    Column("ended_at", INTEGER),
    Index("incidents_began_at", "began_at"),
    info=closed("what went wrong, public by the status page", PUBLIC, copies="backups; the status page"),
)
incident_updates = strict_table(
    "incident_updates",
    Column("id", ImpersonalText, primary_key=True),
    required("incident", ImpersonalText),
    required("at", INTEGER),
    required("state", ImpersonalText),
    required("message", Text, info=REASON),
    Index("incident_updates_incident", "incident", "id"),
    info=closed("what was said of it", PUBLIC, copies="backups; the status page, mailboxes of subscribers"),
)

# Addresses that get incident updates by mail.
status_subscribers = strict_table(
    "status_subscribers",
    Column("email", Text, primary_key=True, info=mark(SUBSCRIBER, sealed_in="email_sealed")),  # In lower case.
    Column("email_sealed", Text, info=SUBSCRIBER),  # Encrypted, as of contacts.
    # In the links of its mails, to confirm or to unsubscribe.
    required("token", Text, unique=True, info=BINDS_CIPHERTEXTS),
    required("requested_at", INTEGER),
    Column("confirmed_at", INTEGER),  # None: only the confirmation mail was sent.
    # The id of the last update that was mailed.
    required("last_update", ImpersonalText, server_default=""),
    Column("language", ImpersonalText),  # Language of the page at subscription; None: not recorded then.
    required("failures", INTEGER, server_default="0"),  # Consecutive failures to mail the next update.
    Column("next_try_at", INTEGER),  # None: at once.
    info=closed(
        "addresses of the public that have updates of incidents",
        "until they unsubscribe; a day where they do not confirm",
    ),
)
