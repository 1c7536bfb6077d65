"""The places outside the database that can hold personal data. Literal, pure.

If a place has names in code, such as the columns of a Parquet file, `names` lists the names that can hold personal
data, and `impersonal` the others. A test compares both with the code.
"""

from typing import NamedTuple


class Place(NamedTuple):
    """A place outside the database: the personal data in it, and for how long."""

    what: str
    retention: str
    erasure: str
    """The effect of a customer's erasure on it."""
    names: tuple[str, ...] = ()
    impersonal: tuple[str, ...] = ()


OWN_TIME = "nothing: it ends with its time"

ACCESS_LOG = Place(
    "address of the client, or its network (`mask_addresses`), path, name of the customer, and name of the user with a "
    "password, of each request",
    "as the rotation of the file says",
    OWN_TIME,
    ("client", "path", "customer", "user", "request_id", "upstream_request_id", "trace_id", "span_id"),
    (
        *("time", "method", "protocol", "host", "status", "route", "tier", "bytes_in", "bytes_out", "seconds"),
        *("upstream", "endpoint", "upstream_seconds", "retries", "error", "aborted", "region", "sample"),
    ),
)
PARQUET = Place(
    "name of the customer, and values of dimensions",
    "as the bucket's lifecycle says",
    "nothing: files are never changed",
    ("customer", "dimensions"),
    ("hour", "meter", "region", "edge", "route", "value"),
)
METRIC_LABELS = Place(
    "nothing: no label has the name of a customer, an address or an e-mail address",
    "-",
    "nothing is there",
    (),
    (
        *("action", "build", "by", "came", "cap", "channel", "code", "edge", "error", "issuer", "kind", "le"),
        *("meter", "mode"),
        *(
            "model",
            "name",
            "plan",
            "policy",
            "priority",
            "reason",
            "residency",
            "result",
            "route",
            "rule",
            "share",
            "side",
        ),
        *("state", "table", "tier", "upstream", "version", "why", "worker"),
    ),
)
STRIPE = Place(
    "name, e-mail and address of the payer, payment methods, tax ids, invoices",
    "as Stripe keeps it",
    "the customer is deleted, once its invoices are settled and no payment is disputed; invoices stay",
    (
        *("balance_transactions", "billing_portal", "charges", "checkout", "credit_notes", "customers", "disputes"),
        *("events", "invoice_items", "invoice_payments", "invoices", "payment_intents", "refunds", "subscriptions"),
    ),
    ("billing", "prices", "products"),
)

PLACES = {
    "access log of an edge": ACCESS_LOG,
    "own log of an edge or a collector": Place(
        "names of customers, addresses of clients that were refused, names of tokens and operators; what alerts tell, "
        "such as why an event was rejected, which may quote a field of it",
        "as the rotation of the file says",
        OWN_TIME,
    ),
    "tables of an edge (`limits`, `quotas`, `tallies`)": Place(
        "names of customers and addresses of clients",
        "until a row is reclaimed; tallies until they are sealed",
        "the next reclaim takes them",
    ),
    "spans of an edge, in the receiver of `tracing`": Place(
        "a hash of the name of the customer, or the name; the path; the address of the client if that is switched on",
        "as the receiver keeps them",
        OWN_TIME,
    ),
    "spool of an edge": Place("batches, as in the table `batches`", "7 days, 1 GiB", OWN_TIME),
    "directory.db of an edge": Place(
        "names and settings of customers, hashes of keys; encrypted where `cache_key` is set",
        "until the directory has other ones",
        "the next version replaces them, and its files are purged of them, within seconds",
    ),
    "hub, keys `rl:{…}`": Place(
        "hashes of what a limit counts; no names", "until the window or the period is over", OWN_TIME
    ),
    "hub, the customer directory": Place(
        "names and settings of customers, hashes of keys",
        "until a later version replaces it",
        "a version with everybody follows within a minute or two, and those before it expire 10 minutes later",
    ),
    "metrics": METRIC_LABELS,
    "Parquet files": PARQUET,
    "ClickHouse, where exports are copied to it": Place(
        "what Parquet files have", "until somebody deletes it there", "nothing: it is what the files are"
    ),
    "backups": Place("all of the database", "as the backups are kept", "nothing"),
    "Stripe": STRIPE,
    "mailboxes, channels of alerts, servers of webhooks": Place(
        "the mails and messages that were sent there", "as their owners keep them", "nothing: they are others'"
    ),
}
"""The places by name."""
