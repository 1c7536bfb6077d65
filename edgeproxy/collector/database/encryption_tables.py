"""The tables of keys, on the metadata of `schema.py`. No key is in them that is not wrapped."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, Table, Text

from edgeproxy.collector.database.schema import INTEGER, metadata

# Keys that the master key wraps (collector/encryption/keyring.py).
encryption_keys = Table(
    "encryption_keys",
    metadata,
    Column("id", INTEGER, primary_key=True, autoincrement=False),  # 0: look-up; else data keys, the highest is in use.
    Column("wrapped", LargeBinary, nullable=False),  # By a key service.
    Column("sha256", Text, nullable=False),  # Of the key, by which a wrong one is known.
    Column("created_at", INTEGER, nullable=False),  # Unix milliseconds.
    sqlite_strict=True,
)

# The key of each customer with encrypted values; without it they are lost for good, which is what erasure is.
data_keys = Table(
    "data_keys",
    metadata,
    Column("customer", Text, primary_key=True),  # The id.
    Column("encryption_key", INTEGER, ForeignKey("encryption_keys.id"), nullable=False),  # Which wraps it.
    Column("wrapped", LargeBinary, nullable=False),
    Index("data_keys_encryption_key", "encryption_key", "customer"),
    sqlite_strict=True,
)

# The key of the books of each calendar year (UTC), by which invoices are sealed beyond an erasure of their customers.
book_keys = Table(
    "book_keys",
    metadata,
    Column("year", INTEGER, primary_key=True, autoincrement=False),
    Column("encryption_key", INTEGER, ForeignKey("encryption_keys.id"), nullable=False),  # Which wraps it.
    Column("wrapped", LargeBinary, nullable=False),
    sqlite_strict=True,
)
