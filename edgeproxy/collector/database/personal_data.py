"""The map of personal data: which text and binary columns hold data about people. Literal, pure.

Each table lists all such columns, as personal or as impersonal. `scripts/check` fails for columns that are missing. The
erasure of customers, the export of their data and docs/privacy/data-map.md are based on this map.
"""

from collections.abc import Mapping

from edgeproxy.collector.database.personal_billing_data import BILLING_TABLES
from edgeproxy.collector.database.personal_marks import (
    CLEARS,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    DIMENSION,
    EMAIL,
    END_USER_ID,
    EXTERNAL_ID,
    FAILURE,
    FREE,
    HANDLED,
    ID,
    LABEL,
    MESSAGE,
    NAME,
    ONE,
    OPERATOR,
    REASON,
    SETTINGS,
    Owner,
    PersonalData,
    Subject,
    TableEntry,
)

COUNTED = "for good, as usage and invoices are summed by it"
PUBLIC = "for good, as the public log of what went wrong"
EDGE = "a row for each edge, for good: its chain of batches goes on from it"
TRAFFIC = "7 days by minute, 400 days by hour (`retention.traffic_minutes`, `retention.traffic_hours`)"
CONTACT = {"email": EMAIL, "customer": CUSTOMER_ID, "email_sealed": EMAIL, "domain": EMAIL}
MOVED = {"customer": CUSTOMER_ID, "peer": CUSTOMER_ID}
SUBSCRIBED = dict.fromkeys(("email", "email_sealed"), PersonalData("e-mail address", Subject.PUBLIC, "mail asked for"))
SIGNED_IN = {"label": LABEL, "label_sealed": LABEL, "customer": CUSTOMER_NAME}

TABLES: Mapping[str, TableEntry] = {
    # ---- accounts
    "keys": TableEntry(
        DELETION,
        {"customer": CUSTOMER_ID, "name": FREE, "revoked_for": REASON},
        "id sha256 start scopes limits budget successor next_key",
        ID,
        DELETES,
        copies="backups; hashes at edges and in the hub, as long as the key works",
    ),
    "contacts": TableEntry(DELETION, CONTACT, "role language", ID, DELETES),
    "privacy_requests": TableEntry(
        f"for good, as a proof that it was answered; of a customer {DELETION}",
        {
            "customer": CUSTOMER_ID,
            "person": PersonalData("who asks, and how to answer", Subject.PUBLIC, "answering"),
            "steps": REASON,
        },
        "id kind law state",
        ID,
        CLEARS,
        ("person", "steps"),
    ),
    "end_user_secrets": TableEntry(DELETION, {"customer": CUSTOMER_NAME}, "secret", NAME, DELETES),
    "end_users": TableEntry(
        f"until the person is erased; {DELETION}",
        {"customer": CUSTOMER_NAME, "hash": END_USER_ID, "pseudonym": DIMENSION},
        "",
        NAME,
        DELETES,
    ),
    "data_keys": TableEntry(DELETION, {"customer": CUSTOMER_ID}, "wrapped", ID, DELETES),
    "book_keys": TableEntry("until the books of its year are over (`retention.invoices`)", impersonal="wrapped"),
    "encryption_keys": TableEntry("until a rotation replaces it", impersonal="wrapped sha256"),
    "sign_in_links": TableEntry(
        "15 minutes; an hour for an operator's first, 7 days for an invitation", SIGNED_IN, "sha256", NAME, DELETES
    ),
    "held_forms": TableEntry("10 minutes", {**SIGNED_IN, "fields": FREE, "page": FREE}, "sha256 action", NAME, DELETES),
    "sessions": TableEntry("8 hours", SIGNED_IN, "sha256 roles contact_role", NAME, DELETES),
    "token_secrets": TableEntry("until it is revoked", {}, "sha256 token", Owner("token", "tokens", "name"), DELETES),
    "tokens": TableEntry(
        f"until it is revoked; of a customer {DELETION}",
        {"name": OPERATOR, "customer": CUSTOMER_NAME, "created_by": OPERATOR},
        "role edge region",
        NAME,
        DELETES,
    ),
    "limit_raises": TableEntry(
        "until the raise ends", {"customer": CUSTOMER_ID, "by": OPERATOR, "why": REASON}, "", ID, DELETES
    ),
    "withdrawn_arrivals": TableEntry("7 days", impersonal="id"),
    "customer_moves": TableEntry(COUNTED, MOVED, "id side residency state counted promised", ID),
    "webhook_deliveries": TableEntry(
        "30 days", {"error": FAILURE}, "message endpoint state", Owner("message", "webhook_messages"), DELETES
    ),
    "webhook_messages": TableEntry(
        "30 days",
        {"customer": CUSTOMER_ID, "body": MESSAGE},
        "id type",
        ID,
        DELETES,
        copies="backups; the customer's own server",
    ),
    "webhook_endpoints": TableEntry(
        DELETION,
        {"customer": CUSTOMER_ID, "url": FREE, "description": FREE, "disabled_why": REASON},
        "id types secret old_secret state",
        ID,
        DELETES,
    ),
    "flags": TableEntry("until the flag is deleted", {"settings": CUSTOMER_NAME}, "name", copies="backups; edges, hub"),
    "idempotency": TableEntry(
        "24 hours",
        {"answer": PersonalData("answer of the API, encrypted", Subject.CUSTOMER, "answering once")},
        "key request",
    ),
    "audit": TableEntry(
        "for good, as who did what: it is a chain, of which nothing can be left out",
        {
            "actor": OPERATOR,
            "origin": PersonalData("IP address, or its network (`privacy`)", Subject.OPERATOR, "accountability"),
            "target": CUSTOMER_NAME,
            "before": PersonalData("what was changed, without secrets", Subject.CUSTOMER, "accountability"),
            "after": PersonalData("what was changed, without secrets", Subject.CUSTOMER, "accountability"),
        },
        "action request_id hash",
    ),
    "audit_head": TableEntry(ONE, impersonal="hash"),
    # ---- the directory for edges
    "directory_outbox": TableEntry(
        "until it is published, seconds", {"name": CUSTOMER_NAME}, "kind", copies="backups; edges, hub"
    ),
    "directory_log": TableEntry("until a later version replaces it", impersonal="token line"),
    "directory_parts": TableEntry(
        "until a later version replaces it; after an erasure 10 minutes after the next one with everybody, which comes "
        "within a minute or two",
        {
            "body": PersonalData(
                "names, settings and hashes of keys of customers", Subject.CUSTOMER, "serving the customer"
            )
        },
        "token",
        copies="backups; the hub; `directory.db` of edges, encrypted where `cache_key` is set",
    ),
    # ---- usage
    "edges": TableEntry(EDGE, impersonal="edge region hash token version"),
    "batches": TableEntry(
        "100 days (`retention.batches`); those in quarantine until they are replayed",
        {
            "body": PersonalData(
                "names of customers, and values of dimensions", Subject.CUSTOMER, "proving the ledger"
            ),
            "replay": PersonalData(
                "names of customers, and values of dimensions", Subject.CUSTOMER, "proving the ledger"
            ),
            "folded": DIMENSION,
        },
        "edge hash state why coding",
        copies="backups; the edge's spool, for 7 days",
    ),
    "checkpoints": TableEntry(EDGE, impersonal="edge hash"),
    "late_hours": TableEntry("as `hours`", impersonal="edge"),
    "series": TableEntry(
        COUNTED,
        {"customer": CUSTOMER_NAME, "dimensions": DIMENSION},
        "edge region meter route",
        NAME,
        copies="backups; Parquet files",
    ),
    "series_dimensions": TableEntry(
        COUNTED, {"value": DIMENSION}, "name", Owner("series", "series"), copies="backups; Parquet files"
    ),
    "ledger": TableEntry(
        "400 days (`retention.minutes`)", owner=Owner("series", "series"), copies="backups; Parquet files"
    ),
    "hours": TableEntry(COUNTED, owner=Owner("series", "series"), copies="backups; Parquet files"),
    "days": TableEntry(COUNTED, owner=Owner("series", "series")),
    "dropped": TableEntry("for good, as `edgeproxy verify` proves sums by it", owner=Owner("series", "series")),
    "dimension_values": TableEntry(
        DELETION, {"customer": CUSTOMER_NAME, "value": DIMENSION}, "meter name", NAME, DELETES
    ),
    "rollup": TableEntry(ONE),
    "traffic": TableEntry(TRAFFIC, impersonal="edge region"),
    "traffic_routes": TableEntry(TRAFFIC, impersonal="edge route region"),
    "customer_errors": TableEntry("7 days", {"customer": CUSTOMER_NAME}, "edge route by region", NAME, DELETES),
    "minutes_floor": TableEntry(ONE),
    "limit_watches": TableEntry("10 minutes", {"customer": CUSTOMER_NAME}, "", NAME, DELETES),
    "limit_usage": TableEntry("10 minutes", {"customer": CUSTOMER_NAME}, "edge region limits", NAME, DELETES),
    "events": TableEntry(
        "for good, as each is counted once and explains an invoice",
        {
            "id": END_USER_ID,
            "customer": CUSTOMER_NAME,
            "request_id": END_USER_ID,
            "upstream_request_id": END_USER_ID,
            "replaces": END_USER_ID,
            "item": END_USER_ID,
            **dict.fromkeys(("dimensions", "folded"), DIMENSION),
        },
        "source meter",
        NAME,
        CLEARS,
        ("request_id", "upstream_request_id", "item"),
    ),
    "dead_letters": TableEntry(
        "until somebody replays or discards it",
        {
            "token": OPERATOR,
            "error": FAILURE,
            "event": PersonalData("a rejected event", Subject.END_USER, "correcting it"),
        },
        "id",
        copies="backups; erasure deletes those that name the customer, also encoded or compressed",
    ),
    # ---- quotas
    "holdings": TableEntry(
        f"until it is released; {DELETION}",
        {"customer": CUSTOMER_NAME, "item": END_USER_ID, "token": OPERATOR},
        "meter",
        NAME,
        DELETES,
    ),
    "past_holdings": TableEntry("for good, as the times are billed", {"customer": CUSTOMER_NAME}, "meter", NAME),
    "entitlements": TableEntry(
        f"until the subscription ends; {DELETION}", {"customer": CUSTOMER_ID}, "plan_version quotas", ID, DELETES
    ),
    "quota_passes": TableEntry("until the period ends", {"customer": CUSTOMER_NAME}, "meter", NAME, DELETES),
    "quota_counts": TableEntry(DELETION, {"customer": CUSTOMER_NAME}, "meter per timezone", NAME, DELETES),
    # ---- alerts and anomalies
    "alert_deliveries": TableEntry(
        DELETION,
        {"recipient": EMAIL, "error": FAILURE},
        "channel state language",
        Owner("alert", "alerts"),
        DELETES,
        copies="backups; mailboxes and channels of recipients",
    ),
    "alert_handling": TableEntry(DELETION, HANDLED, "side", Owner("alert", "alerts"), DELETES),
    "alert_mutes": TableEntry(DELETION, {"customer": CUSTOMER_NAME, "by": LABEL}, "side kind", NAME, DELETES),
    "alerts": TableEntry(
        f"for good, as what operators were told; of a customer {DELETION}",
        {"key": CUSTOMER_NAME, "customer": CUSTOMER_NAME, "title": MESSAGE, "details": MESSAGE},
        "kind severity",
        NAME,
        DELETES,
        copies="backups; mailboxes and channels of recipients",
    ),
    "anomaly_baselines": TableEntry(DELETION, {"customer": CUSTOMER_NAME}, "meter numbers", NAME, DELETES),
    "anomalies": TableEntry(
        "until `expires_at`", {"customer": CUSTOMER_NAME, "details": MESSAGE}, "meter kind severity", NAME, DELETES
    ),
    "anomaly_progress": TableEntry(ONE, impersonal="name"),
    **BILLING_TABLES,
    # ---- pages
    "checks": TableEntry("400 days", impersonal="region result"),
    "incidents": TableEntry(PUBLIC, {"title": REASON}, "id severity regions", copies="backups; the status page"),
    "incident_updates": TableEntry(
        PUBLIC, {"message": REASON}, "id incident state", copies="backups; the status page, mailboxes of subscribers"
    ),
    "status_subscribers": TableEntry(
        "until they unsubscribe; a day where they do not confirm", SUBSCRIBED, "token last_update language"
    ),
    "sign_ups": TableEntry("an hour, then to the next sign-up", SUBSCRIBED, "sha256"),
    # Last, because erasure by name looks the customer up here.
    "customers": TableEntry(
        f"{DELETION}; id, name and tier for good",
        {
            "id": CUSTOMER_ID,
            "name": CUSTOMER_NAME,
            "display_name": CUSTOMER_NAME,
            "external_id": EXTERNAL_ID,
            "external_id_sealed": EXTERNAL_ID,
            "settings": SETTINGS,
            "metadata": PersonalData(
                "texts of the operator, such as an alert address", Subject.CUSTOMER, "the operator's"
            ),
            "public_key": FREE,
        },
        "tier currency",
        Owner("id", "id"),
        CLEARS,
        ("display_name", "external_id", "external_id_sealed", "settings", "metadata", "public_key"),
        copies="backups; edges and hub have settings, and name or pseudonym; Stripe has the name",
    ),
}
"""The tables of the database. If erasure deletes children and parents, children come first."""
