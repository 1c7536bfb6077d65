"""The export of a customer's data from the database, as a ZIP file.

The archive has a JSON and a CSV file for each table with rows of the customer, and `manifest.json` with the SHA-256 of
each file. It contains the tables with an owner on the map of personal data, rejected events that name the customer, and
audit entries about the customer. NOT_EXPORTED gives the reason for each table left out. Secrets are not data about a
person, so they are left out too: hashes of keys, tokens and sessions, and webhook secrets. The rows are read and
written in parts, so memory use does not grow with their number.
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
from edgeproxy.collector.database.marks import Subject, get_facts
from edgeproxy.collector.database.personal_data import TABLES
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
    name: secrets
    for name, table in metadata.tables.items()
    if (secrets := frozenset(column.name for column in table.columns if get_facts(column).get("is_secret")))
}
"""Columns that are not exported, by table."""
SELECTED = (audit.name, dead_letters.name)
"""Tables without an owner whose rows about the customer are exported."""
NOT_EXPORTED: Mapping[str, str] = {
    name: entry.not_exported for name, entry in TABLES.items() if entry.not_exported is not None
}
"""Tables with customer data that are not exported, each with the reason."""
DETAILS = ("action", "target", "before", "after")
TARGETS: Mapping[str, tuple[str, str]] = {
    "alert.": ("alerts", "id"),
    "invoice.": ("invoices", "id"),
    "token.": ("tokens", "name"),
}
"""The table and column of an action's target, by the prefix of the action."""
NAMING = ("session.", "token.", "privacy_request.")
"""Prefixes of actions whose details hold a customer's name and no text written by a third party."""
REJECTED = "dead_letter."
"""The prefix of actions whose details contain a rejected event."""
OTHERS = (Subject.OPERATOR, Subject.PUBLIC)
"""Subjects of columns that are left out of a customer's own archive."""
HANDLED_BY_SIDES = ("alert_handling", "alert_mutes")
"""Tables of steps by operators and by the customer's users. The column `side` tells them apart."""
ARCHIVE_BYTES_MAX = 64 << 20
"""The largest archive to send, in bytes. It is in memory while it is sent."""
ROWS_AT_ONCE = 1000
"""The number of rows that are read and written together."""
SPOOL_BYTES = 8 << 20
"""The most bytes of a file in memory. A larger file is on disk until the archive contains it."""


class ArchiveTooLargeError(Exception):
    """The archive would exceed the size limit."""


async def write_archive(
    connection: AsyncConnection,
    customer: CustomerRow,
    to: IO[bytes],
    *,
    is_own: bool = False,
    bytes_max: int | None = None,
) -> dict[str, int]:
    """Write the archive of a customer, and return the number of rows by table, without empty tables.

    With `is_own` the archive is for the customer, and leaves out the actions and reasons of the collector's operators.
    Raises ArchiveTooLargeError once the archive exceeds `bytes_max`.
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
                async for part in stream.partitions(ROWS_AT_ONCE):  # Row by row took five times as long.
                    rows = _open_rows(reader, name, columns, names, part)
                    pair.add(rows)
                    count += len(rows)
                if count:
                    files += await asyncio.to_thread(pair.move_into, archive, count)  # Compression takes a while.
                    counts[name] = count
            if bytes_max is not None and to.tell() > bytes_max:
                raise ArchiveTooLargeError
        manifest = {"customer": {"id": customer.id, "name": customer.name}, "files": files}
        archive.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
    return counts


async def _fetch_own_tokens(connection: AsyncConnection, customer: CustomerRow) -> frozenset[str]:
    """Return the names of the tokens bound to a customer."""
    statement = sa.select(tokens.c.name).where(select_own(tokens.name, [customer.id], [customer.name]))
    return frozenset(await connection.scalars(statement))


def _is_by(actor: str, own_tokens: Collection[str]) -> bool:
    """Return whether a contact of the customer or one of its tokens made an audit entry."""
    return actor.startswith(CONTACT) or actor in own_tokens


class _RowReader(NamedTuple):
    """Decrypts rows of a customer, and decides which audit entries the customer may read."""

    customer: CustomerRow
    data_keys: DataKeys
    own_tokens: Collection[str] | None
    """The names of the customer's tokens if the archive is for the customer, else None."""


def _open_rows(
    reader: _RowReader, table: str, columns: list[str], names: list[str], part: Sequence[Sequence[object]]
) -> Sequence[Sequence[object]]:
    """Return the customer's rows of a part, decrypted and reduced to the columns `names`.

    Rows that cannot be read are set aside.
    """
    has_operators = bool(TABLES[table].operator_fields) and reader.own_tokens is not None
    if table not in SEALED and table not in SELECTED and columns == names and not has_operators:
        return part
    rows: list[dict[str, object]] = [dict(zip(columns, row, strict=True)) for row in part]
    chosen = (row for row in rows if _is_own(table, row, reader.customer.name))
    key = metadata.tables[table].primary_key.columns.keys()
    own = parse_rows(
        table,
        chosen,
        lambda row: _open_row(reader, table, row),
        lambda row: ",".join(str(row.get(column)) for column in key),
    )
    return [[row[name] for name in names] for row in own]


def _open_row(reader: _RowReader, table: str, row: dict[str, object]) -> dict[str, object]:
    """Return a decrypted row of a customer. Raises SealedValueError."""
    customer, data_keys, own_tokens = reader
    if table == audit.name:
        if own_tokens is not None and not _is_by(str(row["actor"]), own_tokens):
            return row | {"before": None, "after": None}  # Texts that an operator wrote are not for the customer.
        details = Details(*(row[name] for name in DETAILS))  # type: ignore[arg-type]
        # A key created after the erasure opens no earlier entries.
        owner = customer.id if customer.erased_at is None else ""
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
    """Return the JSON of an object without these members, or None if the text is not a JSON object.

    Such a text could contain anything, so none of it is exported.
    """
    try:
        content: dict[str, object] = orjson.loads(text)
        return orjson.dumps({name: value for name, value in content.items() if name not in members}).decode()
    except (orjson.JSONDecodeError, AttributeError):
        return None


def _list_statements(customer: CustomerRow, *, is_own: bool) -> Iterator[tuple[str, sa.Select[tuple[object, ...]]]]:
    """Yield each table with the statement that reads a customer's rows."""
    for name, entry in sorted(TABLES.items()):
        if entry.owner is not None:
            own = select_own(name, [customer.id], [customer.name])
            if is_own and name in HANDLED_BY_SIDES:
                own &= metadata.tables[name].c.side == "customer"
            yield name, _select_columns(name, is_own=is_own).where(own).order_by(*metadata.tables[name].primary_key)
    letters = _select_columns(dead_letters.name, is_own=is_own).where(match_events([customer.name]))
    yield dead_letters.name, letters.order_by(dead_letters.c.id)
    # The actor decides which parts of an entry the customer may read.
    entries = sa.select(audit).where(_match_entries(customer))
    yield audit.name, entries.order_by(audit.c.seq)


def _list_hidden(name: str, *, is_own: bool) -> set[str]:
    """Return the columns left out of an archive: secrets, and in a customer's own archive the data of others."""
    others = {column for column, data in TABLES[name].personal.items() if is_own and data.subject in OTHERS}
    return others | SECRETS.get(name, frozenset())


def _select_columns(name: str, *, is_own: bool) -> sa.Select[tuple[object, ...]]:
    """Return the statement that selects a table's columns, without hidden ones unless decryption needs them."""
    hidden = _list_hidden(name, is_own=is_own) - set(SEALED[name].key if name in SEALED else ())
    return sa.select(*(column for column in metadata.tables[name].columns if column.name not in hidden))


def _match_entries(customer: CustomerRow) -> sa.ColumnElement[bool]:
    """Return the condition that an audit entry is about a customer, by its target or its details."""
    target = audit.c.target
    about = target.in_((customer.id, customer.name)) | target.startswith(f"{customer.name}/", autoescape=True)
    for prefix, (table, column) in TARGETS.items():
        own = sa.select(sa.cast(metadata.tables[table].c[column], sa.Text))
        own = own.where(select_own(table, [customer.id], [customer.name]))
        about |= audit.c.action.startswith(prefix) & target.in_(own)
    naming = sa.or_(*(audit.c.action.startswith(prefix) for prefix in NAMING))
    rejected = audit.c.action.startswith(REJECTED)
    for details in (audit.c.before, audit.c.after):
        # Encrypted details end with the id of their owner.
        about |= details.endswith(f"{OWNER}{customer.id}", autoescape=True)
        about |= naming & details.contains(orjson.dumps({"customer": customer.name}).decode()[1:-1], autoescape=True)
        about |= rejected & details.contains(orjson.dumps(customer.name).decode(), autoescape=True)
    return about


def _is_own(table: str, row: Mapping[str, object], name: str) -> bool:
    """Return whether a selected row is the customer's. A rejected event must itself name the customer."""
    event = row["event"] if table == dead_letters.name else None
    if table == audit.name and str(row["action"]).startswith(REJECTED) and not is_sealed(str(row["before"])):
        event = orjson.dumps(orjson.loads(str(row["before"]))["event"]).decode()
    return event is None or names_one(str(event), [name], if_doubtful=False)


class _Files:
    """The JSON and the CSV file of a table while they are written."""

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
        """Append rows to both files."""
        if rows:
            objects = (
                orjson.dumps(dict(zip(self._columns, row, strict=True)), default=_format_unusual) for row in rows
            )
            self._json.write(self._separator + b",\n".join(objects))
            self._separator = b",\n"
            self._csv.write(render_csv([[_to_cell(value) for value in row] for row in rows]).encode())

    def move_into(self, archive: zipfile.ZipFile, rows: int) -> list[dict[str, object]]:
        """Move both files into the archive, and return their manifest entries."""
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
    """Return a value in the form of a CSV cell."""
    if isinstance(value, int | str):
        return value
    if isinstance(value, bytes | UnreadableValue):
        return _format_unusual(value)
    return "" if value is None else str(value)


def _format_unusual(value: object) -> str:
    """Return bytes in hex, and a placeholder text for a value that cannot be read. Raises TypeError for others."""
    return value.hex() if isinstance(value, bytes) else format_unreadable(value)
