"""Customers, keys and flags from files into the database, and back into a file that says the same.

What files say goes in; what they do not name stays as it is. A key that was revoked stays so, whatever a file says. Of
a customer, files have what edges are told: the external id, metadata and `rotate_every` stay in the database.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.customers import dump_settings
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.keys import SHA256_START_CHARACTERS
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers, flags, keys
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer, Flag, Key
from edgeproxy.config.directory import parse_document

AT_ONCE = 200
"""Rows of a transaction: what the collector does meanwhile never waits for long."""

T = TypeVar("T")


class ImportResult(NamedTuple):
    """How many were new, and how many were changed; what could not be brought, a sentence each."""

    added: int = 0
    changed: int = 0
    same: int = 0
    refused: tuple[str, ...] = ()

    def __add__(self, other: Any) -> "ImportResult":
        """Return both together."""
        return ImportResult(*(mine + its for mine, its in zip(self, other, strict=True)))


class DryRunError(Exception):
    """It was only tried."""


async def import_settings(
    database: Database, settings: CollectorSettings, caller: Caller, *, dry: bool
) -> dict[str, ImportResult]:
    """Have the database say what these settings say; with `dry` only tell what that would change.

    Each change has its audit entry. What is cut off has brought some, and the next time brings the rest.
    """
    results = {"customers": ImportResult(), "keys": ImportResult(), "flags": ImportResult()}
    for some in _split_batches(settings.customers.items()):
        results["customers"] += await _import_batch(database, _import_customers, dict(some), caller, dry)
    missing = set(settings.customers) if dry else set()
    for keys_of_files in _split_batches(settings.keys):
        results["keys"] += await _import_batch(database, _import_keys, list(keys_of_files), caller, dry, missing)
    for flags_of_files in _split_batches(settings.flags.items()):
        results["flags"] += await _import_batch(database, _import_flags, dict(flags_of_files), caller, dry)
    return results


async def _import_batch(
    database: Database, step: Any, batch: Any, caller: Caller, dry: bool, *more: Any
) -> ImportResult:
    result = ImportResult()
    try:
        async with database.writing() as connection:
            result = await step(connection, batch, caller, *more)
            if dry:
                raise DryRunError
    except DryRunError:
        pass
    return result


async def _import_customers(connection: AsyncConnection, batch: Mapping[str, Customer], caller: Caller) -> ImportResult:
    existing = {
        row.name: row
        for row in await connection.execute(
            sa.select(customers).where(customers.c.name.in_(list(batch))).with_for_update()
        )
    }
    new, entries, refused, same, changed = [], [], [], 0, 0
    for name, customer in batch.items():
        settings = dump_settings(customer)
        text = orjson.dumps(settings).decode()
        row = existing.get(name)
        if is_id(name):
            refused.append(f"customer {name}: the name has the form of an id")
        elif row is None:
            new.append(
                {
                    "id": generate_id(),
                    "name": name,
                    "tier": customer.tier,
                    "settings": text,
                    "metadata": "{}",
                    "created_at": now_ms(),
                    "version": 1,
                }
            )
            entries.append(AuditEntry("customer.create", name, None, settings))
        elif row.deleting_since is not None:
            refused.append(f"customer {name}: is being deleted")
        elif row.settings == text:
            same += 1
        else:
            changed += 1
            values = {"settings": text, "tier": customer.tier, "version": row.version + 1}
            await connection.execute(sa.update(customers).where(customers.c.id == row.id).values(values))
            entries.append(AuditEntry("customer.change", name, orjson.loads(row.settings), settings))
    if new:
        await connection.execute(sa.insert(customers), new)
    await _record(connection, caller, "customer", [entry.target for entry in entries], entries)
    return ImportResult(len(new), changed, same, tuple(refused))


async def _import_keys(
    connection: AsyncConnection, batch: Sequence[Key], caller: Caller, pending_customers: set[str]
) -> ImportResult:
    """`coming`: customers who would be there by now, had it not only been tried."""
    names = {key.customer for key in batch}
    statement = sa.select(customers.c.name, customers.c.id).where(customers.c.name.in_(names))
    owners: dict[str, str] = {row.name: row.id for row in await connection.execute(statement)}
    digests = [key.sha256 for key in batch]
    rows = await connection.execute(sa.select(keys).where(keys.c.sha256.in_(digests)).with_for_update())
    existing = {row.sha256: row for row in rows}
    new, entries, touched, refused, same, changed = [], [], [], [], 0, 0
    for key in batch:
        values = _build_key_columns(key)
        start = f"sha256:{key.sha256[:SHA256_START_CHARACTERS]}"
        row, owner = existing.get(key.sha256), owners.get(key.customer)
        if owner is None and key.customer in pending_customers:
            owner = ""
        if owner is None:
            refused.append(f"key {start}: there is no customer {key.customer}")
        elif row is None:
            columns = {"id": generate_id(), "customer": owner, "sha256": key.sha256, "start": start, "version": 1}
            new.append({**columns, "created_at": now_ms(), **values})
            touched.append(key.customer)
            entries.append(
                AuditEntry(
                    "key.create", f"{key.customer}/{columns['id']}", None, {"start": start, **_drop_nulls(values)}
                )
            )
        elif row.customer != owner:
            refused.append(f"key {start}: is of another customer")
        elif row.revoked_at is not None:
            refused.append(f"key {start}: was revoked, and stays so")
        elif row.successor is not None:
            same += 1  # It ends as was said when it was rotated.
        elif all(getattr(row, name) == value for name, value in values.items()):
            same += 1
        else:
            changed += 1
            await connection.execute(
                sa.update(keys).where(keys.c.id == row.id).values(values | {"version": row.version + 1})
            )
            touched.append(key.customer)
            before = _drop_nulls({name: getattr(row, name) for name in values})
            entries.append(AuditEntry("key.change", f"{key.customer}/{row.id}", before, _drop_nulls(values)))
    if new:
        await connection.execute(sa.insert(keys), new)
    await _record(connection, caller, "customer", touched, entries)
    return ImportResult(len(new), changed, same, tuple(refused))


async def _import_flags(connection: AsyncConnection, batch: Mapping[str, Flag], caller: Caller) -> ImportResult:
    existing = {
        row.name: row for row in await connection.execute(sa.select(flags).where(flags.c.name.in_(list(batch))))
    }
    entries, added, changed = [], 0, 0
    for name, flag in batch.items():
        settings = flag.model_dump(mode="json", exclude_defaults=True)
        text, row = orjson.dumps(settings).decode(), existing.get(name)
        if row is not None and row.settings == text:
            continue
        values = {"settings": text, "updated_at": now_ms(), "version": 1 if row is None else row.version + 1}
        if row is None:
            added += 1
            await connection.execute(sa.insert(flags), [{"name": name, **values}])
        else:
            changed += 1
            await connection.execute(sa.update(flags).where(flags.c.name == name).values(values))
        entries.append(AuditEntry("flag.put", name, None if row is None else orjson.loads(row.settings), settings))
    await _record(connection, caller, "flag", [entry.target for entry in entries], entries)
    return ImportResult(added, changed, len(batch) - added - changed)


async def _record(
    connection: AsyncConnection,
    caller: Caller,
    kind: documents.DocumentKind,
    names: Sequence[str],
    entries: Sequence[AuditEntry],
) -> None:
    await documents.enqueue_changes(connection, kind, dict.fromkeys(names))
    await audit.append_entries(connection, caller, entries)


def _build_key_columns(key: Key) -> dict[str, Any]:
    """The columns of what a file says of a key."""
    limits = [limit.model_dump(mode="json", by_alias=True, exclude_defaults=True) for limit in key.limits]
    return {
        "scopes": None if key.scopes is None else orjson.dumps(sorted(key.scopes)).decode(),
        "limits": orjson.dumps(limits).decode() if limits else None,
        "expires_at": None if key.expires is None else round(key.expires * 1000),
    }


def _drop_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _split_batches(items: Any) -> Iterator[list[Any]]:
    left = iter(items)
    while batch := list(islice(left, AT_ONCE)):
        yield batch


async def export_lines(connection: AsyncConnection) -> AsyncIterator[str]:
    """Write all customers, keys and flags as the lines of a file that edges and collectors include."""
    begun = False
    async for name, line in documents.stream_lines(connection, for_files=True):
        if not begun:
            yield "customers:"
            begun = True
        settings = parse_document(line).customer or ""
        yield f"  {_format_json(name)}: {settings}"
    begun = False
    async for name, line in documents.stream_lines(connection, for_files=True):
        for digest, key in parse_document(line).keys.items():
            if not begun:
                yield "keys:"
                begun = True
            key_settings = orjson.loads(key)
            if "expires" in key_settings:
                key_settings["expires"] = _format_timestamp(key_settings["expires"])
            yield f"  - {_format_json({'sha256': digest.hex(), 'customer': name, **key_settings})}"
    all_flags = await documents.fetch_flags(connection)
    if all_flags:
        yield "flags:"
    for name, flag in all_flags.items():
        yield f"  {_format_json(name)}: {_format_json(flag.model_dump(mode='json', exclude_defaults=True))}"


def _format_json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _format_timestamp(second: float) -> str:
    at = datetime.fromtimestamp(second, UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
