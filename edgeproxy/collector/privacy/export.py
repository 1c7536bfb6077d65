"""The export of what the database has of a customer, as a ZIP file.

It has a JSON and a CSV file for each table with rows of the customer, and `manifest.json` with the SHA-256 of each.
Tables are those with an owner on the map of personal data, rejected events that name the customer, and entries of the
audit log about it; NOT_EXPORTED says why the others are not. Secrets are no data about a person, and stay: hashes of
keys, tokens and sessions, and the secrets of webhooks. Rows are written as they are read, so that memory does not grow
with them.
"""

import asyncio
import hashlib
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.spreadsheet import render_csv
from edgeproxy.collector.accounts.audit_details import CONTACT, OWNER, Details, is_sealed, open_entry
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.personal_marks import Subject
from edgeproxy.collector.database.schema import audit, dead_letters, metadata, tokens
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.database.unreadable_rows import UnreadableValue, format_unreadable, parse_rows
from edgeproxy.collector.encryption.data_keys import DataKeys, fetch_data_keys
from edgeproxy.collector.encryption.owners import DATABASE, has_owner_id
from edgeproxy.collector.encryption.rows import open_row
from edgeproxy.collector.privacy.own_rows import select_own
from edgeproxy.collector.privacy.rejected_events import match_events, names_one

MANIFEST = "manifest.json"
SECRETS: Mapping[str, frozenset[str]] = {
    "keys": frozenset({"sha256"}),
    "token_secrets": frozenset({"sha256"}),
    "sessions": frozenset({"sha256"}),
    "sign_in_links": frozenset({"sha256"}),
    "held_forms": frozenset({"sha256"}),
    "webhook_endpoints": frozenset({"secret", "old_secret"}),
    "data_keys": frozenset({"wrapped"}),
    "end_user_secrets": frozenset({"secret"}),
}
"""Columns that are not exported, by table."""
SELECTED = (audit.name, dead_letters.name)
"""Tables without an owner of which rows about the customer are exported."""
NOT_EXPORTED: Mapping[str, str] = {
    "batches": "counts of all customers; this one's are in `ledger`, `hours` and `days`",
    "directory_outbox": "the name alone, for seconds",
    "directory_parts": "all customers, made of `customers` and `keys`",
    "flags": "lists of all customers, with the name alone",
    "idempotency": "encrypted by the request's own key, which nobody else has",
    "plan_versions": "plans of all; this one's is in `subscriptions`",
    "price_moves": "plans of all; this one's is in `subscriptions`",
    "reconciliations": "differences of all; what was compared is in `invoices` and `credit_transactions`",
    "webhook_events": "what Stripe said, which Stripe has",
}
"""Tables with data about customers that are not exported, each with why."""
DETAILS = ("action", "target", "before", "after")
TARGETS: Mapping[str, tuple[str, str]] = {
    "alert.": ("alerts", "id"),
    "invoice.": ("invoices", "id"),
    "token.": ("tokens", "name"),
}
"""The table, and its column, that targets of actions are of, by how the actions begin."""
NAMING = ("session.", "token.", "privacy_request.")
"""How actions begin whose details have the name of a customer, and no text that somebody else has made up."""
REJECTED = "dead_letter."
"""How actions begin whose details have a rejected event."""
OTHERS = (Subject.OPERATOR, Subject.PUBLIC)
"""Whom the columns are about that a customer's own archive has not."""
HANDLED_BY_SIDES = ("alert_handling", "alert_mutes")
"""Tables of what operators did, and of what the customer's people did; each side has its own `side`."""
ARCHIVE_BYTES_MAX = 64 << 20
"""Bytes of an archive that is sent, as it is in memory meanwhile."""
ROWS_AT_ONCE = 1000
"""Rows that are read and written together."""
SPOOL_BYTES = 8 << 20
"""Bytes of a file that are in memory; of a longer one the rest is on disk until it is in the archive."""


class ArchiveTooLargeError(Exception):
    """The archive would be larger than it may be."""


async def write_archive(
    connection: AsyncConnection,
    customer: CustomerRow,
    to: IO[bytes],
    *,
    is_own: bool = False,
    bytes_max: int | None = None,
) -> dict[str, int]:
    """Write the archive of a customer, and return the number of rows by table; empty tables are left out.

    With `is_own` it is for the customer, and has nothing of who operates the collector: who did what, and why.
    Raises ArchiveTooLargeError once it has more than `bytes_max`.
    """
    counts: dict[str, int] = {}
    files: list[dict[str, object]] = []
    data_keys = await fetch_data_keys(connection, [customer.id, DATABASE])
    reader = _RowReader(customer, data_keys, await _fetch_own_tokens(connection, customer) if is_own else None)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, statement in _list_statements(customer, is_own=is_own):
            columns = [str(column.name) for column in statement.selected_columns]
            hidden = {*_list_hidden(name, is_own=is_own), *(SEALED[name].unread if name in SEALED else ())}
            names, count = [column for column in columns if column not in hidden], 0
            with _Files(name, names) as pair:
                stream = await connection.stream(statement)
                async for part in stream.partitions(ROWS_AT_ONCE):  # Row by row it took five times as long.
                    rows = _open_rows(reader, name, columns, names, part)
                    pair.add(rows)
                    count += len(rows)
                if count:
                    files += await asyncio.to_thread(pair.move_into, archive, count)  # To compress takes a while.
                    counts[name] = count
            if bytes_max is not None and to.tell() > bytes_max:
                raise ArchiveTooLargeError
        manifest = {"customer": {"id": customer.id, "name": customer.name}, "files": files}
        archive.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return counts


async def _fetch_own_tokens(connection: AsyncConnection, customer: CustomerRow) -> frozenset[str]:
    """Return the names of the tokens that are bound to a customer."""
    statement = sa.select(tokens.c.name).where(select_own(tokens.name, [customer.id], [customer.name]))
    return frozenset((await connection.execute(statement)).scalars())


def _is_by(actor: str, own_tokens: Collection[str]) -> bool:
    """Return whether an entry about a customer is by itself: by a contact, or by one of its tokens."""
    return actor.startswith(CONTACT) or actor in own_tokens


class _RowReader(NamedTuple):
    """What opens rows of a customer, and says which of the audit log are the customer's to read."""

    customer: CustomerRow
    data_keys: DataKeys
    own_tokens: Collection[str] | None
    """The names of the customer's tokens, where the archive is for itself."""


def _open_rows(
    reader: _RowReader, table: str, columns: list[str], names: list[str], part: Sequence[Sequence[object]]
) -> Sequence[Sequence[object]]:
    """Return those rows of a part, with these columns, that are the customer's, as they are meant, with the columns of
    these names. Those that cannot be read are set aside."""
    has_operators = bool(TABLES[table].operator_fields) and reader.own_tokens is not None
    if table not in SEALED and table not in SELECTED and columns == names and not has_operators:
        return part
    rows: list[dict[str, object]] = [dict(zip(columns, row, strict=True)) for row in part]
    chosen = (row for row in rows if _is_own(table, row, reader.customer.name))
    key = metadata.tables[table].primary_key.columns.keys()
    own = parse_rows(
        table, chosen, lambda row: _open_row(reader, table, row), lambda row: ",".join(str(row.get(one)) for one in key)
    )
    return [[row[name] for name in names] for row in own]


def _open_row(reader: _RowReader, table: str, row: dict[str, object]) -> dict[str, object]:
    """Return a row of a customer as it is meant; raises SealedValueError."""
    customer, data_keys, own_tokens = reader
    if table == audit.name:
        if own_tokens is not None and not _is_by(str(row["actor"]), own_tokens):
            return row | {"before": None, "after": None}  # What an operator wrote is not for the customer.
        details = Details(*(row[name] for name in DETAILS))  # type: ignore[arg-type]
        owner = customer.id if customer.erased_at is None else ""  # A key made since opens nothing of before.
        opened = open_entry(details, owner, data_keys)
        return row | {"before": opened.before, "after": opened.after}
    if own_tokens is not None:
        row = row | {
            column: _drop_members(str(row[column]), members)
            for column, members in TABLES[table].operator_fields.items()
        }
    if table not in SEALED:
        return row
    owner = customer.id if customer.erased_at is None or has_owner_id(table) else DATABASE
    return open_row(data_keys, table, row, owner)


def _drop_members(text: str, members: frozenset[str]) -> str | None:
    """Return the JSON of an object without these members; None where it is none, as anything may be in it then."""
    try:
        content: dict[str, object] = orjson.loads(text)
        return orjson.dumps({name: value for name, value in content.items() if name not in members}).decode()
    except (orjson.JSONDecodeError, AttributeError):
        return None


def _list_statements(customer: CustomerRow, *, is_own: bool) -> Iterator[tuple[str, sa.Select[tuple[object, ...]]]]:
    """List the tables, each with the statement that reads its rows of a customer."""
    for name, entry in sorted(TABLES.items()):
        if entry.owner is not None:
            own = select_own(name, [customer.id], [customer.name])
            if is_own and name in HANDLED_BY_SIDES:
                own &= metadata.tables[name].c.side == "customer"
            yield name, _select_columns(name, is_own=is_own).where(own).order_by(*metadata.tables[name].primary_key)
    letters = _select_columns(dead_letters.name, is_own=is_own).where(match_events([customer.name]))
    yield dead_letters.name, letters.order_by(dead_letters.c.id)
    entries = sa.select(audit).where(_match_entries(customer))  # Its actor says what of it is the customer's to read.
    yield audit.name, entries.order_by(audit.c.seq)


def _list_hidden(name: str, *, is_own: bool) -> set[str]:
    """Return the columns of a table that an archive has not: secrets, and in a customer's own one what is of others."""
    others = {column for column, data in TABLES[name].personal.items() if is_own and data.subject in OTHERS}
    return others | SECRETS.get(name, frozenset())


def _select_columns(name: str, *, is_own: bool) -> sa.Select[tuple[object, ...]]:
    """Return the statement that selects the columns of a table, but those that are hidden and open no others."""
    hidden = _list_hidden(name, is_own=is_own) - set(SEALED[name].key if name in SEALED else ())
    return sa.select(*(column for column in metadata.tables[name].columns if column.name not in hidden))


def _match_entries(customer: CustomerRow) -> sa.ColumnElement[bool]:
    """Return the condition that an entry of the audit log is about a customer: its target, or its details say so."""
    target = audit.c.target
    about = target.in_((customer.id, customer.name)) | target.startswith(f"{customer.name}/", autoescape=True)
    for prefix, (table, column) in TARGETS.items():
        own = sa.select(sa.cast(metadata.tables[table].c[column], sa.Text))
        own = own.where(select_own(table, [customer.id], [customer.name]))
        about |= audit.c.action.startswith(prefix) & target.in_(own)
    naming = sa.or_(*(audit.c.action.startswith(prefix) for prefix in NAMING))
    rejected = audit.c.action.startswith(REJECTED)
    for details in (audit.c.before, audit.c.after):
        about |= details.endswith(f"{OWNER}{customer.id}", autoescape=True)  # Where they are encrypted.
        about |= naming & details.contains(orjson.dumps({"customer": customer.name}).decode()[1:-1], autoescape=True)
        about |= rejected & details.contains(orjson.dumps(customer.name).decode(), autoescape=True)
    return about


def _is_own(table: str, row: Mapping[str, object], name: str) -> bool:
    """Return whether a row that was selected is the customer's: of rejected events the event itself says it."""
    event = row["event"] if table == dead_letters.name else None
    if table == audit.name and str(row["action"]).startswith(REJECTED) and not is_sealed(str(row["before"])):
        event = orjson.dumps(orjson.loads(str(row["before"]))["event"]).decode()
    return event is None or names_one(str(event), [name], if_doubtful=False)


class _Files:
    """The JSON and the CSV file of a table, while they are written."""

    def __init__(self, table: str, columns: list[str]) -> None:
        self._table = table
        self._columns = columns
        self._json, self._csv = (tempfile.SpooledTemporaryFile(SPOOL_BYTES) for _ in range(2))  # noqa: SIM115
        self._separator = b"[\n"

    def __enter__(self) -> "_Files":
        self._csv.write(render_csv([self._columns]).encode())
        return self

    def __exit__(self, *_: object) -> None:
        self._json.close()
        self._csv.close()

    def add(self, rows: Sequence[Sequence[object]]) -> None:
        """Add rows."""
        if rows:
            objects = (
                orjson.dumps(dict(zip(self._columns, row, strict=True)), default=_format_unusual) for row in rows
            )
            self._json.write(self._separator + b",\n".join(objects))
            self._separator = b",\n"
            self._csv.write(render_csv([[_to_cell(value) for value in row] for row in rows]).encode())

    def move_into(self, archive: zipfile.ZipFile, rows: int) -> list[dict[str, object]]:
        """Move both files into the archive, and return what the manifest says of each."""
        moved: list[dict[str, object]] = []
        self._json.write(b"\n]\n")
        for suffix, file in (("json", self._json), ("csv", self._csv)):
            path = f"{suffix}/{self._table}.{suffix}"
            file.seek(0)
            digest, size = hashlib.sha256(), 0
            with archive.open(path, "w", force_zip64=True) as opened:
                while part := file.read(1 << 20):
                    digest.update(part)
                    size += len(part)
                    opened.write(part)
            moved.append({"path": path, "rows": rows, "bytes": size, "sha256": digest.hexdigest()})
        return moved


def _to_cell(value: object) -> int | str:
    """Return a value as it is in a CSV file."""
    if isinstance(value, int | str):
        return value
    if isinstance(value, bytes | UnreadableValue):
        return _format_unusual(value)
    return "" if value is None else str(value)


def _format_unusual(value: object) -> str:
    """Return bytes in hex, and a text for a value that cannot be read; raises TypeError for all others."""
    return value.hex() if isinstance(value, bytes) else format_unreadable(value)
