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
from edgeproxy.collector.accounts.audit import Caller, Entry
from edgeproxy.collector.accounts.customers import written
from edgeproxy.collector.accounts.ids import is_id, new_id, now_ms
from edgeproxy.collector.accounts.keys import SHA256_START_CHARACTERS
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers, flags, keys
from edgeproxy.config.collector import Settings
from edgeproxy.config.directory import parse_document
from edgeproxy.config.models import Customer, Flag, Key

AT_ONCE = 200
"""Rows of a transaction: what the collector does meanwhile never waits for long."""

T = TypeVar("T")


class Brought(NamedTuple):
    """How many were new, and how many were changed; what could not be brought, a sentence each."""

    added: int = 0
    changed: int = 0
    same: int = 0
    refused: tuple[str, ...] = ()

    def __add__(self, other: Any) -> "Brought":
        """Return both together."""
        return Brought(*(mine + its for mine, its in zip(self, other, strict=True)))


class Dry(Exception):
    """It was only tried."""


async def bring(database: Database, settings: Settings, caller: Caller, *, dry: bool) -> dict[str, Brought]:
    """Have the database say what these settings say; with `dry` only tell what that would change.

    Each change has its audit entry. What is cut off has brought some, and the next time brings the rest.
    """
    found = {"customers": Brought(), "keys": Brought(), "flags": Brought()}
    for some in _batches(settings.customers.items()):
        found["customers"] += await _try(database, _customers, dict(some), caller, dry)
    missing = set(settings.customers) if dry else set()
    for keys_of_files in _batches(settings.keys):
        found["keys"] += await _try(database, _keys, list(keys_of_files), caller, dry, missing)
    for flags_of_files in _batches(settings.flags.items()):
        found["flags"] += await _try(database, _flags, dict(flags_of_files), caller, dry)
    return found


async def _try(database: Database, step: Any, some: Any, caller: Caller, dry: bool, *more: Any) -> Brought:
    done = Brought()
    try:
        async with database.writing() as connection:
            done = await step(connection, some, caller, *more)
            if dry:
                raise Dry
    except Dry:
        pass
    return done


async def _customers(connection: AsyncConnection, some: Mapping[str, Customer], caller: Caller) -> Brought:
    there = {
        row.name: row
        for row in await connection.execute(
            sa.select(customers).where(customers.c.name.in_(list(some))).with_for_update()
        )
    }
    new, entries, refused, same, changed = [], [], [], 0, 0
    for name, customer in some.items():
        said = written(customer)
        text = orjson.dumps(said).decode()
        row = there.get(name)
        if is_id(name):
            refused.append(f"customer {name}: the name has the form of an id")
        elif row is None:
            new.append(
                {
                    "id": new_id(),
                    "name": name,
                    "tier": customer.tier,
                    "settings": text,
                    "metadata": "{}",
                    "created_at": now_ms(),
                    "version": 1,
                }
            )
            entries.append(Entry("customer.create", name, None, said))
        elif row.deleting_since is not None:
            refused.append(f"customer {name}: is being deleted")
        elif row.settings == text:
            same += 1
        else:
            changed += 1
            values = {"settings": text, "tier": customer.tier, "version": row.version + 1}
            await connection.execute(sa.update(customers).where(customers.c.id == row.id).values(values))
            entries.append(Entry("customer.change", name, orjson.loads(row.settings), said))
    if new:
        await connection.execute(sa.insert(customers), new)
    await _record(connection, caller, "customer", [entry.target for entry in entries], entries)
    return Brought(len(new), changed, same, tuple(refused))


async def _keys(connection: AsyncConnection, some: Sequence[Key], caller: Caller, coming: set[str]) -> Brought:
    """`coming`: customers who would be there by now, had it not only been tried."""
    names = {key.customer for key in some}
    wanted = sa.select(customers.c.name, customers.c.id).where(customers.c.name.in_(names))
    owners: dict[str, str] = {row.name: row.id for row in await connection.execute(wanted)}
    digests = [key.sha256 for key in some]
    found = await connection.execute(sa.select(keys).where(keys.c.sha256.in_(digests)).with_for_update())
    there = {row.sha256: row for row in found}
    new, entries, touched, refused, same, changed = [], [], [], [], 0, 0
    for key in some:
        values = _values(key)
        shown = f"sha256:{key.sha256[:SHA256_START_CHARACTERS]}"
        row, owner = there.get(key.sha256), owners.get(key.customer)
        if owner is None and key.customer in coming:
            owner = ""
        if owner is None:
            refused.append(f"key {shown}: there is no customer {key.customer}")
        elif row is None:
            made = {"id": new_id(), "customer": owner, "sha256": key.sha256, "start": shown, "version": 1}
            new.append({**made, "created_at": now_ms(), **values})
            touched.append(key.customer)
            entries.append(
                Entry("key.create", f"{key.customer}/{made['id']}", None, {"start": shown, **_given(values)})
            )
        elif row.customer != owner:
            refused.append(f"key {shown}: is of another customer")
        elif row.revoked_at is not None:
            refused.append(f"key {shown}: was revoked, and stays so")
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
            before = _given({name: getattr(row, name) for name in values})
            entries.append(Entry("key.change", f"{key.customer}/{row.id}", before, _given(values)))
    if new:
        await connection.execute(sa.insert(keys), new)
    await _record(connection, caller, "customer", touched, entries)
    return Brought(len(new), changed, same, tuple(refused))


async def _flags(connection: AsyncConnection, some: Mapping[str, Flag], caller: Caller) -> Brought:
    there = {row.name: row for row in await connection.execute(sa.select(flags).where(flags.c.name.in_(list(some))))}
    entries, added, changed = [], 0, 0
    for name, flag in some.items():
        said = flag.model_dump(mode="json", exclude_defaults=True)
        text, row = orjson.dumps(said).decode(), there.get(name)
        if row is not None and row.settings == text:
            continue
        values = {"settings": text, "updated_at": now_ms(), "version": 1 if row is None else row.version + 1}
        if row is None:
            added += 1
            await connection.execute(sa.insert(flags), [{"name": name, **values}])
        else:
            changed += 1
            await connection.execute(sa.update(flags).where(flags.c.name == name).values(values))
        entries.append(Entry("flag.put", name, None if row is None else orjson.loads(row.settings), said))
    await _record(connection, caller, "flag", [entry.target for entry in entries], entries)
    return Brought(added, changed, len(some) - added - changed)


async def _record(
    connection: AsyncConnection, caller: Caller, kind: documents.Kind, names: Sequence[str], entries: Sequence[Entry]
) -> None:
    await documents.note(connection, kind, dict.fromkeys(names))
    await audit.append_all(connection, caller, entries)


def _values(key: Key) -> dict[str, Any]:
    """The columns of what a file says of a key."""
    limits = [limit.model_dump(mode="json", by_alias=True, exclude_defaults=True) for limit in key.limits]
    return {
        "scopes": None if key.scopes is None else orjson.dumps(sorted(key.scopes)).decode(),
        "limits": orjson.dumps(limits).decode() if limits else None,
        "expires_at": None if key.expires is None else round(key.expires * 1000),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _batches(some: Any) -> Iterator[list[Any]]:
    left = iter(some)
    while batch := list(islice(left, AT_ONCE)):
        yield batch


async def take(connection: AsyncConnection) -> AsyncIterator[str]:
    """Write all customers, keys and flags as the lines of a file that edges and collectors include."""
    begun = False
    async for name, line in documents.every(connection, for_files=True):
        if not begun:
            yield "customers:"
            begun = True
        said = parse_document(line).customer or ""
        yield f"  {_json(name)}: {said}"
    begun = False
    async for name, line in documents.every(connection, for_files=True):
        for digest, key in parse_document(line).keys.items():
            if not begun:
                yield "keys:"
                begun = True
            said_of_key = orjson.loads(key)
            if "expires" in said_of_key:
                said_of_key["expires"] = _moment(said_of_key["expires"])
            yield f"  - {_json({'sha256': digest.hex(), 'customer': name, **said_of_key})}"
    found = await documents.every_flag(connection)
    if found:
        yield "flags:"
    for name, flag in found.items():
        yield f"  {_json(name)}: {_json(flag.model_dump(mode='json', exclude_defaults=True))}"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _moment(second: float) -> str:
    at = datetime.fromtimestamp(second, UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
