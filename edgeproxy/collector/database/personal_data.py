"""The map of personal data: which text and binary columns hold data about people. Derived from the marks of the tables.

The erasure of customers, the export of their data and docs/privacy/data-map.md are based on this map.
"""

from collections.abc import Mapping

from edgeproxy.collector.database.marks import TableMark, get_table_mark
from edgeproxy.collector.database.schema import metadata


def _count_parents(marks: Mapping[str, TableMark], name: str) -> int:
    """Count the tables between a table and its customers. The table of customers itself is last of all."""
    owner = marks[name].owner
    if name == "customers":
        return -1
    return 1 + _count_parents(marks, owner.by) if owner is not None and owner.by in marks else 0


_MARKS = {name: mark for name, table in metadata.tables.items() if (mark := get_table_mark(table)) is not None}
TABLES: Mapping[str, TableMark] = {
    name: _MARKS[name] for name in sorted(_MARKS, key=lambda name: -_count_parents(_MARKS, name))
}
"""The marked tables of the database. Children come before parents, because erasure finds children by them; customers
come last, because erasure by name looks the customer up there."""
