"""The page docs/privacy/data-map.md, rendered from the maps in the code. Pure; `scripts/data-map` writes it."""

from collections.abc import Iterator

from edgeproxy.collector.database.book_text import list_book_columns
from edgeproxy.collector.database.marks import BOOKS_END, Erasure, TableMark
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import SEALED, SealedTable
from edgeproxy.collector.privacy.export import NOT_EXPORTED, SELECTED
from edgeproxy.collector.privacy.places import PLACES

BOOKS = list_book_columns(metadata)
"""The columns that are encrypted with the key of a year."""
HEAD = """# The map of personal data

All places that can hold data about a person: customers and their contacts, end users of customers, operators, and the
public. Whether they do depends on you: a name of a customer can be a number, and a dimension need not be a person.

This page is made by `.venv/bin/python scripts/data-map` of the code: the marks of tables and columns
(`edgeproxy/collector/database/marks.py`) and `edgeproxy/collector/privacy/places.py`. A text column without a mark
fails the tests. [Erasure and export](privacy.md) follow the same map. Which columns
[encryption at rest](encryption.md) covers, and which it does not, is in the table.
"""


def render_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([HEAD, *_render_tables(), "", *_render_places(), ""])


def _render_tables() -> Iterator[str]:
    yield "## In the database\n"
    yield (
        "| column | what | about | what for | kept | when a customer is erased | in the export of a customer | "
        "with `encryption` | copies |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for table, entry in sorted(TABLES.items()):
        for column, data in entry.personal.items():
            retention = BOOKS_END if column in entry.ended else entry.retention
            cells = [f"`{table}.{column}`", data.what, data.subject, data.purpose, retention]
            cells += [_describe_erasure(entry, column), _describe_export(table, entry, column)]
            cells += [_describe_encryption(table, column), entry.copies]
            yield f"| {' | '.join(cells)} |"
    impersonal = sorted(table for table, entry in TABLES.items() if not entry.personal)
    yield f"\nNo column of these tables is about a person: {', '.join(f'`{table}`' for table in impersonal)}."


def _describe_erasure(entry: TableMark, column: str) -> str:
    """Return the effect of erasure on a column."""
    if entry.erasure is Erasure.DELETES:
        return "the row is deleted"
    return "cleared" if column in entry.cleared else "stays"


def _describe_export(table: str, entry: TableMark, column: str) -> str:
    """Return whether a column is in a customer's export, or the reason why it is not."""
    sealed = SEALED.get(table, SealedTable(()))
    if column in sealed.unread:
        return "as what it is made of"
    if entry.owner is not None or table in SELECTED:
        return "yes"
    return f"no: {NOT_EXPORTED.get(table, 'it is about others')}"


def _describe_encryption(table: str, column: str) -> str:
    """Return the effect of encryption at rest on a column."""
    sealed = SEALED.get(table, SealedTable(()))
    if column in sealed.looked_up or column in sealed.domains:
        return "keyed hash"
    if column in sealed.plain or column in sealed.looked_up.values():
        return "encrypted"
    if column in BOOKS.get(table, {}):
        return "encrypted, by the key of its year"
    facts = TABLES[table].facts[column]
    return facts.get("encryption") or f"in the clear: {facts.get('in_clear')}"


def _render_places() -> Iterator[str]:
    yield "## Elsewhere\n"
    yield "| place | what | kept | when a customer is erased |\n|---|---|---|---|"
    for name, place in PLACES.items():
        names = f" ({', '.join(f'`{column}`' for column in place.names)})" if place.names else ""
        yield f"| {name}{names} | {place.what} | {place.retention} | {place.erasure} |"
