"""The columns that are encrypted by the data key of a row's customer, where `encryption` is set. Literal, pure.

A value that rows are looked up by has a keyed hash in its column, and its ciphertext in another one; any other value
has its ciphertext in its own column.
"""

from collections.abc import Mapping
from typing import NamedTuple


class SealedTable(NamedTuple):
    """A table with encrypted columns."""

    customer: str
    """The column with the id of the customer."""
    key: tuple[str, ...]
    """The primary key, as stored: a ciphertext cannot be decrypted in another row."""
    plain: tuple[str, ...] = ()
    """Columns with a ciphertext instead of the value."""
    looked_up: Mapping[str, str] = {}
    """Columns with a keyed hash instead of the value, each with the column of the ciphertext."""
    domains: Mapping[str, str] = {}
    """Columns with the domain of an address, or its keyed hash, each with the column of the address."""

    @property
    def unread(self) -> frozenset[str]:
        """The columns that no row has as it is meant."""
        return frozenset((*self.looked_up.values(), *self.domains))


SEALED: Mapping[str, SealedTable] = {
    "contacts": SealedTable("customer", ("email", "customer"), (), {"email": "email_sealed"}, {"domain": "email"}),
    "customers": SealedTable("id", ("id",), ("metadata",), {"external_id": "external_id_sealed"}),
}
BARE = ("", "{}")
"""Values that say nothing, and are stored as they are where nobody looks them up."""
