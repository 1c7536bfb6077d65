"""The tables of privacy requests, and of secrets and pseudonyms of end users.

They are on the metadata of `schema.py`.
"""

from sqlalchemy import Column, Index, LargeBinary, Text

from edgeproxy.collector.database.marks import (
    CLEARS,
    CUSTOMER_ID,
    CUSTOMER_NAME,
    DELETES,
    DELETION,
    DIMENSION,
    END_USER_ID,
    ID,
    NAME,
    REASON,
    SECRET,
    ImpersonalText,
    Subject,
    get_facts,
    mark,
    of_customers,
    personal,
)
from edgeproxy.collector.database.schema import INTEGER, events, partial_index, required, strict_table

# Privacy requests and their handling (collector/privacy/requests.py). Times are Unix milliseconds.
privacy_requests = strict_table(
    "privacy_requests",
    Column("id", ImpersonalText, primary_key=True),  # UUIDv7.
    Column("customer", Text, info=CUSTOMER_ID),  # The id of the customer concerned; None: no known customer.
    required("kind", ImpersonalText),
    required("law", ImpersonalText),
    # The requester; None once the customer is erased.
    Column(
        "person",
        Text,
        info=personal("who asks, and how to answer", Subject.PUBLIC, "answering", is_cleared=True, is_sealed=True),
    ),
    required("state", ImpersonalText),
    # JSON; None once the customer is erased.
    Column("steps", Text, info=mark(REASON, is_cleared=True, is_sealed=True)),
    required("requested_at", INTEGER),
    required("due_at", INTEGER),
    Column("ended_at", INTEGER),
    Index("privacy_requests_customer", "customer"),
    partial_index("privacy_requests_open", "id", where="ended_at IS NULL"),
    info=of_customers(ID, f"for good, as a proof that it was answered; of a customer {DELETION}", CLEARS),
)

# The secrets for hashing a customer's end users (collector/accounts/end_users.py).
end_user_secrets = strict_table(
    "end_user_secrets",
    Column("customer", Text, primary_key=True, info=CUSTOMER_NAME),  # The name in the ledger.
    required("secret", LargeBinary, info=SECRET),
    info=of_customers(NAME, DELETION, DELETES),
)

# The end user behind each pseudonym in dimensions (collector/accounts/end_user_pseudonyms.py): one row per person,
# until the person is erased.
end_users = strict_table(
    "end_users",
    # Hash of the name, keyed by the customer's secret.
    Column(
        "hash",
        Text,
        primary_key=True,
        info=mark(END_USER_ID, in_clear="a hash by the customer's secret, which is encrypted"),
    ),
    required("customer", Text, info=CUSTOMER_NAME),  # The name in the ledger.
    required("pseudonym", Text, info=mark(DIMENSION, in_clear="random; usage is summed by it")),
    Index("end_users_customer", "customer"),
    info=of_customers(NAME, f"until the person is erased; {DELETION}", DELETES),
)

# Erasure clears some columns of a customer's events. The index has no entry for events without them.
_CLEARED = [column.name for column in events.columns if get_facts(column).get("is_cleared")]
PERSONAL = " OR ".join(f"{name} IS NOT NULL" for name in _CLEARED)
partial_index("events_personal", events.c.customer, where=PERSONAL)
