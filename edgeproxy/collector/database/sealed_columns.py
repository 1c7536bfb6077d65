"""The columns that are encrypted with the data key of the row's customer, if `encryption` is set.

The marks of the columns say so (marks.py). The map of personal data names each row's customer. Rows without one are
encrypted with the data key of the database. A column used for look-ups holds a keyed hash, and another column the
ciphertext. Any other column holds its ciphertext itself.
"""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from edgeproxy.collector.database.marks import get_facts
from edgeproxy.collector.database.schema import metadata


class SealedTable(NamedTuple):
    """A table with encrypted columns."""

    key: tuple[str, ...]
    """The primary key as stored, or another unique column. Ciphertexts are bound to it: in another row they cannot be
    decrypted.
    """
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


def _build_sealed_table(table: sa.Table) -> SealedTable:
    facts = {column.name: get_facts(column) for column in table.columns}
    bound = [name for name, fact in facts.items() if fact.get("binds_ciphertexts")]
    return SealedTable(
        tuple(bound or (column.name for column in table.primary_key)),
        tuple(name for name, fact in facts.items() if fact.get("is_sealed")),
        {name: fact["sealed_in"] for name, fact in facts.items() if "sealed_in" in fact},
        {name: fact["domain_of"] for name, fact in facts.items() if "domain_of" in fact},
    )


SEALED: Mapping[str, SealedTable] = {
    name: sealed
    for name, table in sorted(metadata.tables.items())
    if (sealed := _build_sealed_table(table)).plain or sealed.looked_up
}
BARE = ("", "{}")
"""Empty values. They are not encrypted in columns without look-ups."""
