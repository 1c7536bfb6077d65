"""The tables of keys, on the metadata of `schema.py`. All keys in them are wrapped."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Text

from edgeproxy.collector.database.marks import (
    ADD,
    CUSTOMER_ID,
    DELETES,
    DELETION,
    ID,
    IMPERSONAL,
    SECRET,
    ImpersonalText,
    closed,
    of_customers,
)
from edgeproxy.collector.database.schema import INTEGER, required, strict_table

# Keys that are wrapped by the master key (collector/encryption/keyring.py).
encryption_keys = strict_table(
    "encryption_keys",
    Column("id", INTEGER, primary_key=True, autoincrement=False),  # 0: look-up; the highest one wraps new data keys.
    required("wrapped", LargeBinary, info=IMPERSONAL),  # Wrapped by a key service.
    required("sha256", ImpersonalText),  # Hash of the key, to recognize a wrong key.
    required("created_at", INTEGER),  # Unix milliseconds.
    info=closed(
        "keys that wrap data keys of all; read with the rights of the collector", "until a rotation replaces it"
    ),
)

# The data key of each customer with encrypted values. Erasure deletes it, and the values become unreadable for good.
data_keys = strict_table(
    "data_keys",
    Column("customer", Text, primary_key=True, info=CUSTOMER_ID),  # The id.
    required("encryption_key", INTEGER, ForeignKey("encryption_keys.id")),  # The key that wraps it.
    required("wrapped", LargeBinary, info=SECRET),
    Index("data_keys_encryption_key", "encryption_key", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ADD),
)

# The key of the books of each calendar year (UTC). It encrypts invoices, so they stay readable after an erasure.
book_keys = strict_table(
    "book_keys",
    Column("year", INTEGER, primary_key=True, autoincrement=False),
    required("encryption_key", INTEGER, ForeignKey("encryption_keys.id")),  # The key that wraps it.
    required("wrapped", LargeBinary, info=IMPERSONAL),
    info=closed(
        "keys of the books of all; read with the rights of the collector",
        "until the books of its year are over (`retention.invoices`)",
    ),
)
