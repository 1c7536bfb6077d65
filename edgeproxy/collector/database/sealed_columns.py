"""The columns that are encrypted with the data key of the row's customer, if `encryption` is set. Literal, pure.

The map of personal data names each row's customer. Rows without one are encrypted with the data key of the database. A
column used for look-ups holds a keyed hash, and another column the ciphertext. Any other column holds its ciphertext
itself.
"""

from collections.abc import Mapping
from typing import NamedTuple


class SealedTable(NamedTuple):
    """A table with encrypted columns."""

    key: tuple[str, ...]
    """The primary key as stored. It is bound into the ciphertext, which cannot be decrypted in another row."""
    plain: tuple[str, ...] = ()
    """Columns that hold a ciphertext instead of the value."""
    looked_up: Mapping[str, str] = {}
    """Columns that hold a keyed hash, each with the column of its ciphertext."""
    domains: Mapping[str, str] = {}
    """Columns with the domain of an address or its keyed hash, each with the column of the address."""

    @property
    def unread(self) -> frozenset[str]:
        """Columns that are never returned as plain values."""
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
"""Empty values. They are not encrypted in columns without look-ups."""
