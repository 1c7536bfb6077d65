"""The comparison of the map of personal data with the tables: it lists each text or binary column once. Pure."""

from collections.abc import Iterator

import sqlalchemy as sa

from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata

TEXTS = (sa.Text, sa.LargeBinary, BookText)
"""The types of columns that are on the map."""


def find_gaps() -> Iterator[str]:
    """Yield a sentence for each fault of the map. The tables' modules must have been imported."""
    for name, table in metadata.tables.items():
        if (entry := TABLES.get(name)) is None:
            yield f"the table {name} is not on the map of personal data"
            continue
        named = [*entry.personal, *entry.impersonal.split()]
        texts = {column.name for column in table.columns if isinstance(column.type, TEXTS)}
        for column in sorted(texts - set(named)):
            yield f"the column {name}.{column} is marked neither as personal nor as impersonal"
        for column in sorted(set(named) - texts | {one for one in named if named.count(one) > 1}):
            yield f"{name}.{column} is on the map, and is no text column, or is marked twice"
        if not entry.retention:
            yield f"the map does not say for how long {name} is kept"
    for name in TABLES.keys() - metadata.tables.keys():
        yield f"the table {name} is on the map, and not in the database"
