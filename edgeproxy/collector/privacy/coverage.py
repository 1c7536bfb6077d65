"""Gaps in the marks of personal data: text and binary columns without a mark, and tables without one. Pure."""

from collections.abc import Iterator

import sqlalchemy as sa

from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.marks import get_facts, get_table_mark
from edgeproxy.collector.database.schema import metadata

TEXTS = (sa.Text, sa.LargeBinary, BookText)
"""The types of columns that need a mark."""


def find_gaps(metadata: sa.MetaData = metadata) -> Iterator[str]:
    """Yield a sentence for each gap."""
    for name, table in metadata.tables.items():
        if (mark := get_table_mark(table)) is None:
            yield f"the table {name} has no mark"
        elif not mark.retention:
            yield f"the mark of {name} does not say for how long it is kept"
        for column in table.columns:
            if isinstance(column.type, TEXTS) != ("personal" in get_facts(column)):
                yield f"the column {name}.{column.name} is a text without a mark, or has a mark and is no text"
