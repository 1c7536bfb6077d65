"""The tables of keys, on the metadata of `schema.py`. All keys in them are wrapped."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

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
from edgeproxy.collector.database.schema import INTEGER, metadata

# Keys that are wrapped by the master key (collector/encryption/keyring.py).
encryption_keys = Table(
    "encryption_keys",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=False),  # 0: look-up; the highest one wraps new data keys.
    Column("wrapped", LargeBinary, nullable=False, info=IMPERSONAL),  # Wrapped by a key service.
    Column("sha256", ImpersonalText, nullable=False),  # Hash of the key, to recognize a wrong key.
    Column("created_at", INTEGER, nullable=False),  # Unix milliseconds.
    info=closed(
        "keys that wrap data keys of all; read with the rights of the collector", "until a rotation replaces it"
    ),
    sqlite_strict=True,
)

# The data key of each customer with encrypted values. Erasure deletes it, and the values become unreadable for good.
data_keys = Table(
    "data_keys",
    metadata,
    Column("customer", Text, primary_key=True, info=CUSTOMER_ID),  # The id.
    Column("encryption_key", INTEGER, ForeignKey("encryption_keys.id"), nullable=False),  # The key that wraps it.
    Column("wrapped", LargeBinary, nullable=False, info=SECRET),
    Index("data_keys_encryption_key", "encryption_key", "customer"),
    info=of_customers(ID, DELETION, DELETES, rights=ADD),
    sqlite_strict=True,
)

# The key of the books of each calendar year (UTC). It encrypts invoices, so they stay readable after an erasure.
book_keys = Table(
    "book_keys",
    metadata,
    Column("year", INTEGER, primary_key=True, autoincrement=False),
    Column("encryption_key", INTEGER, ForeignKey("encryption_keys.id"), nullable=False),  # The key that wraps it.
    Column("wrapped", LargeBinary, nullable=False, info=IMPERSONAL),
    info=closed(
        "keys of the books of all; read with the rights of the collector",
        "until the books of its year are over (`retention.invoices`)",
    ),
    sqlite_strict=True,
)
