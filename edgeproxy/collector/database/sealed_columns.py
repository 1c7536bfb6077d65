"""The columns that are encrypted where `encryption` is set, by the data key of a row's customer. Literal, pure.

Whose a row is, says the map of personal data; a row of nobody, or of a table without an owner there, is sealed by the
data key of the database. A value that rows are looked up by has a keyed hash in its column, and its ciphertext in
another one; any other value has its ciphertext in its own column.
"""

from collections.abc import Mapping
from typing import NamedTuple


class SealedTable(NamedTuple):
    """A table with encrypted columns."""

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


LABEL = {"label": "label_sealed"}
SEALED: Mapping[str, SealedTable] = {
    "alert_deliveries": SealedTable(("alert", "channel"), ("recipient",)),
    "billing_details": SealedTable(("customer",), ("payer", "payment_method")),
    "cancellations": SealedTable(("subscription",), ("comment",)),
    "contacts": SealedTable(("email", "customer"), (), {"email": "email_sealed"}, {"domain": "email"}),
    "customers": SealedTable(("id",), ("metadata",), {"external_id": "external_id_sealed"}),
    "held_forms": SealedTable(("sha256",), ("page", "fields"), LABEL),
    "invoice_parties": SealedTable(("invoice",), ("parties",)),
    "limit_raises": SealedTable(("customer",), ("why",)),
    "privacy_requests": SealedTable(("id",), ("person", "steps")),
    "sessions": SealedTable(("sha256",), (), LABEL),
    "sign_in_links": SealedTable(("sha256",), (), LABEL),
    "sign_ups": SealedTable(("sha256",), (), {"email": "email_sealed"}),
    "status_subscribers": SealedTable(("token",), (), {"email": "email_sealed"}),
    "webhook_endpoints": SealedTable(("id",), ("url", "description")),
    "webhook_messages": SealedTable(("id",), ("body",)),
}
BARE = ("", "{}")
"""Values that say nothing, and are stored as they are where nobody looks them up."""
