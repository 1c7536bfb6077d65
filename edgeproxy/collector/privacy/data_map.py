"""The page docs/privacy/data-map.md, rendered from the maps in the code. Pure; `scripts/data-map` writes it."""

from collections.abc import Iterator, Mapping

from edgeproxy.collector.database import personal_marks as marks
from edgeproxy.collector.database.book_text import list_book_columns
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.personal_marks import Erasure, PersonalData, TableEntry
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.sealed_columns import SEALED, SealedTable
from edgeproxy.collector.privacy.export import NOT_EXPORTED, SELECTED
from edgeproxy.collector.privacy.places import PLACES

BOOKS = list_book_columns(metadata)
"""The columns that are encrypted with the key of a year."""
ENCRYPTED_OTHERWISE = {
    "audit.actor": "of a contact a keyed hash",
    "audit.target": "of a contact a keyed hash",
    "audit.before": "of changes of a customer encrypted",
    "audit.after": "of changes of a customer encrypted",
    "credit_transactions.details": "encrypted, by the key of its year; fees, and what was booked in the clear, are not",
    "idempotency.answer": "encrypted in any case, by the request's own key",
    "webhook_events.payload": "encrypted in any case, by a key of the configuration",
}
"""Columns that are encrypted in another way."""
IN_CLEAR: Mapping[PersonalData, str] = {
    marks.CUSTOMER_ID: "it means nothing elsewhere",
    marks.CUSTOMER_NAME: "rows are found, joined and billed by it",
    marks.STRIPE_ID: "rows are found by it when Stripe tells of them; it means nothing without Stripe's key",
    marks.DIMENSION: "usage is summed by it, and the ledger proves it",
    marks.END_USER_ID: "what was counted is found by it",
    marks.OPERATOR: "an operator's, who answers for it",
    marks.LABEL: "an operator's, or of a contact who handles alerts",
    marks.REASON: "an operator's, for the books or for all to read",
    marks.SETTINGS: "edges serve by it: the directory has it too",
    marks.FREE: "it is told to edges, and shown with each key",
    marks.MESSAGE: "written with batches, which are taken while keys are away: names of customers, and numbers",
    marks.FAILURE: "the collector's or Stripe's own words",
}
"""The reason why a column of this kind is not encrypted."""
IN_CLEAR_COLUMNS: Mapping[str, str] = {
    "audit.origin": "an operator's, or its network alone (`privacy.mask_addresses`)",
    "batches.body": "the chain of batches is over it, and the ledger is proved by it",
    "batches.replay": "as of `batches.body`",
    "customers.public_key": "a public key, and what the customer calls it",
    "billing_customers.country": "invoices are made by it",
    "billing_customers.email_hash": "a hash",
    "dead_letters.event": "usage that nobody owns yet, as services report it",
    "end_users.hash": "a hash by the customer's secret, which is encrypted",
    "end_users.pseudonym": "random; usage is summed by it",
    "directory_parts.body": "edges and the hub have the same",
    "webhook_endpoints.disabled_why": "the collector's own words",
}
"""The reason why this column is not encrypted if its kind does not give one."""
HEAD = """# The map of personal data

All places that can hold data about a person: customers and their contacts, end users of customers, operators, and the
public. Whether they do depends on you: a name of a customer can be a number, and a dimension need not be a person.

This page is made by `.venv/bin/python scripts/data-map` of the maps in the code
(`edgeproxy/collector/database/personal_data.py`, `edgeproxy/collector/privacy/places.py`). A text column that is on
neither side of the first map fails the tests. [Erasure and export](privacy.md) follow the same map. Which columns
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
            retention = marks.BOOKS_END if column in entry.ended else entry.retention
            cells = [f"`{table}.{column}`", data.what, data.subject, data.purpose, retention]
            cells += [_describe_erasure(entry, column), _describe_export(table, entry, column)]
            cells += [_describe_encryption(table, column), entry.copies]
            yield f"| {' | '.join(cells)} |"
    impersonal = sorted(table for table, entry in TABLES.items() if not entry.personal)
    yield f"\nNo column of these tables is about a person: {', '.join(f'`{table}`' for table in impersonal)}."


def _describe_erasure(entry: TableEntry, column: str) -> str:
    """Return the effect of erasure on a column."""
    if entry.erasure is Erasure.DELETES:
        return "the row is deleted"
    return "cleared" if column in entry.cleared else "stays"


def _describe_export(table: str, entry: TableEntry, column: str) -> str:
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
    name = f"{table}.{column}"
    if column in BOOKS.get(table, {}):
        return "encrypted, by the key of its year"
    return ENCRYPTED_OTHERWISE.get(name) or f"in the clear: {find_reason(name)}"


def find_reason(name: str) -> str | None:
    """Return the reason why a column is not encrypted, or None."""
    table, _, column = name.partition(".")
    return IN_CLEAR_COLUMNS.get(name) or IN_CLEAR.get(TABLES[table].personal[column])


def _render_places() -> Iterator[str]:
    yield "## Elsewhere\n"
    yield "| place | what | kept | when a customer is erased |\n|---|---|---|---|"
    for name, place in PLACES.items():
        names = f" ({', '.join(f'`{one}`' for one in place.names)})" if place.names else ""
        yield f"| {name}{names} | {place.what} | {place.retention} | {place.erasure} |"
