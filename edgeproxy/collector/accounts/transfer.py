"""The import of customers, keys and flags from files, and their export to an equivalent file.

An import changes only the objects that the files name. A revoked key stays revoked, whatever a file says. Files have
the fields that edges receive in `customers`, and all others in `accounts`. Customers with a pseudonym keep it and their
id, because their usage is counted by it. The names of such customers are in `accounts` alone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import NamedTuple, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customer_rows, customers, documents, key_rows
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, drop_empty_values
from edgeproxy.collector.accounts.customers import Columns
from edgeproxy.collector.accounts.fields import Metadata, Span, Text
from edgeproxy.collector.accounts.ids import is_id, is_pseudonym, now_ms, parse_pseudonym
from edgeproxy.collector.accounts.models import dump_settings
from edgeproxy.collector.accounts.pseudonyms import resolve_names
from edgeproxy.collector.accounts.rows import CustomerRow, FlagRow, KeyRow
from edgeproxy.collector.database import schema
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.collector.account import Account
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer, Flag, Key
from edgeproxy.config.directory import parse_document
from edgeproxy.config.units import format_seconds

AT_ONCE = 200
"""The most rows of a transaction, so that the collector's own work never waits long."""
PAGE_CUSTOMERS = 1000
"""Accounts that an export reads at once."""
TRIES = 3
"""A batch is tried this many times if others create the same rows meanwhile."""

SETTINGS_COLUMNS = frozenset({"settings", "tier"})
"""The columns with the settings that edges receive."""

T = TypeVar("T")


class ImportResult(NamedTuple):
    """The numbers of added, changed and unchanged rows, and a sentence for each refused item."""

    added: int = 0
    changed: int = 0
    same: int = 0
    refused: tuple[str, ...] = ()

    def merge(self, other: "ImportResult") -> "ImportResult":
        """Return the sum of both."""
        refused = self.refused + other.refused
        return ImportResult(self.added + other.added, self.changed + other.changed, self.same + other.same, refused)


class ImportRollbackError(Exception):
    """Roll back a batch of a dry run."""


class _AccountFields(BaseModel):
    """The fields of an account that become columns."""

    external_id: Text | None
    metadata: Metadata
    rotate_every: Span | None


Step = Callable[[AsyncConnection, Caller, Sequence[T]], Awaitable[ImportResult]]
"""Imports a batch in the transaction of the connection."""


async def import_settings(
    database: Database, settings: CollectorSettings, caller: Caller, *, dry: bool
) -> dict[str, ImportResult]:
    """Import the customers, keys and flags of these settings. Return the result for each. `dry` changes nothing.

    Each change has its audit entry. An interrupted import has imported some items, and the next import adds the rest.
    """
    # In a dry run, the customers of the files do not exist when their keys are checked.
    has_pseudonym = customers.has_pseudonyms(settings)
    repeated = _find_repeated(settings.customers, settings.accounts)
    import_customers = partial(
        _import_customers, accounts=settings.accounts, repeated=repeated, has_pseudonym=has_pseudonym
    )
    import_keys = partial(_import_keys, pending_customers=set(settings.customers) if dry else set())
    return {
        "customers": await _import_all(database, import_customers, settings.customers.items(), caller, dry),
        "keys": await _import_all(database, import_keys, settings.keys, caller, dry),
        "flags": await _import_all(database, _import_flags, settings.flags.items(), caller, dry),
    }


async def _import_all(database: Database, step: Step[T], items: Iterable[T], caller: Caller, dry: bool) -> ImportResult:
    """Import items in batches, each in its own transaction."""
    total = ImportResult()
    for batch in _split_batches(items):
        for tries_left in reversed(range(TRIES)):
            result = ImportResult()
            try:
                async with database.writing() as connection:
                    result = await step(connection, caller, batch)
                    if dry:
                        raise ImportRollbackError
            except ImportRollbackError:
                pass
            except sa.exc.IntegrityError:  # Another transaction created one of them meanwhile. It is visible now.
                if not tries_left:
                    raise
                continue
            total = total.merge(result)
            break
    return total


async def _lock_named(connection: AsyncConnection, names: Collection[str]) -> dict[str, CustomerRow]:
    """Return the locked rows of customers by their name in files, a name or a pseudonym."""
    known_by = {name: name for name in names} | await resolve_names(connection, names)
    rows = await customers.lock_customers(connection, set(known_by.values()))
    return {name: rows[one] for name, one in known_by.items() if one in rows}


async def _import_customers(
    connection: AsyncConnection,
    caller: Caller,
    batch: Sequence[tuple[str, Customer]],
    *,
    accounts: Mapping[str, Account],
    repeated: Mapping[str, str],
    has_pseudonym: bool,
) -> ImportResult:
    """Import customers and their accounts. With `has_pseudonym` new ones get a pseudonym.

    `repeated` has customers that are refused, with the reason.
    """
    existing = await _lock_named(connection, [name for name, _ in batch])
    new: list[CustomerRow] = []
    entries: list[AuditEntry] = []
    refused, same = [], 0
    for name, customer in batch:
        account, row = accounts.get(name), existing.get(name)
        try:
            if name in repeated:
                raise ChangeRejectedError(account_codes.CUSTOMER_STATE, repeated[name])
            columns = {} if account is None else _build_account_columns(account)
            if row is None:
                added = _build_customer_row(name, customer, account, has_pseudonym)._replace(**columns)  # type: ignore[arg-type]
                # A name that is no pseudonym was looked up with the batch.
                await customers.require_unused(connection, added.display_name, added.external_id)
                new.append(added)
                after = dump_settings(customer) | drop_empty_values(columns)
                entries.append(AuditEntry("customer.create", added.name, None, after))
                continue
            _require_same(row, account)
            change = await _change_customer(connection, row, customer, columns)
        except (ChangeRejectedError, ValidationError) as error:
            reason = error.why if isinstance(error, ChangeRejectedError) else error.errors()[0]["msg"]
            refused.append(f"customer {name}: {reason}")
            continue
        if change is None:
            same += 1
        else:
            entries.append(change)
    if new:
        await customer_rows.insert_rows(connection, new)
    await _record(connection, caller, "customer", [entry.target for entry in entries], entries)
    return ImportResult(len(new), len(entries) - len(new), same, tuple(refused))


async def _change_customer(
    connection: AsyncConnection, row: CustomerRow, customer: Customer, columns: Columns
) -> AuditEntry | None:
    """Change what a file states otherwise about a stored customer. None: nothing. Raises ChangeRejectedError."""
    settings = dump_settings(customer)
    stated = columns | {"settings": orjson.dumps(settings).decode(), "tier": customer.tier}
    changed = {column: value for column, value in stated.items() if getattr(row, column) != value}
    if not changed:
        return None
    if changed.get("external_id") is not None:
        await customers.require_unused(connection, None, str(changed["external_id"]))
    await customers.transition(connection, row, **changed)
    if "metadata" in changed:
        await customers.note_payer_change(connection, row.id)
    others = changed.keys() - SETTINGS_COLUMNS
    before = orjson.loads(row.settings) | {column: getattr(row, column) for column in others}
    return AuditEntry("customer.change", row.name, before, settings | {column: changed[column] for column in others})


def _find_repeated(named: Iterable[str], accounts: Mapping[str, Account]) -> dict[str, str]:
    """Return the customers whose external id or shown name an earlier one of the files has, each with the reason."""
    external_ids: set[str] = set()
    shown_names: set[str] = set()
    repeated = {}
    for name in named:
        account = accounts.get(name, Account())
        shown = account.name or name
        if account.external_id in external_ids:
            repeated[name] = "another customer of the files has this external_id"
        if shown in shown_names:
            repeated[name] = "another customer of the files has this name"
        shown_names.add(shown)
        if account.external_id is not None:
            external_ids.add(account.external_id)
    return repeated


def _require_same(row: CustomerRow, account: Account | None) -> None:
    """Raise ChangeRejectedError unless a file may change this customer."""
    if row.deleting_since is not None:
        raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "is being deleted")
    if account is not None and account.name not in (None, row.display_name):
        raise ChangeRejectedError(
            account_codes.CUSTOMER_STATE, "has another name in the database, and names cannot be changed"
        )


def _build_customer_row(name: str, customer: Customer, account: Account | None, has_pseudonym: bool) -> CustomerRow:
    """Return the row of a new customer. Raises ChangeRejectedError if it cannot have this name."""
    if is_id(name):
        raise ChangeRejectedError(account_codes.CUSTOMER_STATE, "the name has the form of an id")
    if not is_pseudonym(name):
        return customers.build_row(name, customer, has_pseudonym=has_pseudonym)
    if account is None or account.name is None:
        raise ChangeRejectedError(
            account_codes.CUSTOMER_STATE, "the name has the form of a pseudonym, and accounts does not tell its name"
        )
    if not has_pseudonym:
        raise ChangeRejectedError(account_codes.CUSTOMER_STATE, "has a pseudonym: write privacy: {pseudonyms: true}")
    return customers.build_row(account.name, customer, has_pseudonym=True, known_id=parse_pseudonym(name))


def _build_account_columns(account: Account) -> Columns:
    """Return the columns of a customer that its account states. Raises ValidationError."""
    fields = _AccountFields.model_validate(account, from_attributes=True)
    metadata = orjson.dumps(fields.metadata).decode()
    columns: Columns = {
        "external_id": fields.external_id,
        "metadata": metadata,
        "rotate_every": fields.rotate_every,
    }
    return {column: value for column, value in columns.items() if column in account.model_fields_set}


async def _import_keys(
    connection: AsyncConnection, caller: Caller, batch: Sequence[Key], *, pending_customers: set[str]
) -> ImportResult:
    """Import keys. `pending_customers` would exist by now outside a dry run."""
    names = {key.customer for key in batch}
    owners = await _lock_named(connection, names)
    for name in pending_customers & (names - owners.keys()):
        owners[name] = customers.build_row(name, Customer(tier="pending"))
    ours = schema.keys.c.sha256.in_([key.sha256 for key in batch])
    rows = await connection.execute(key_rows.select_keys(connection).where(ours).with_for_update(of=schema.keys))
    existing = {row.sha256: KeyRow._make(row) for row in rows}
    new, entries, changed_owners, refused, same = [], [], [], [], 0
    for key in batch:
        start, columns = key_rows.format_sha256_start(key.sha256), _build_key_columns(key)
        row, owner = existing.get(key.sha256), owners.get(key.customer)
        if owner is None:
            refused.append(f"key {start}: there is no customer {key.customer}")
        elif owner.deleting_since is not None:
            refused.append(f"key {start}: the customer {key.customer} is being deleted")
        elif row is None:
            added = key_rows.build_row(owner, key.sha256)._replace(**columns)  # type: ignore[arg-type]
            new.append(added)
            changed_owners.append(owner.name)
            after = {"start": start, **drop_empty_values(columns)}
            entries.append(AuditEntry("key.create", f"{owner.name}/{added.id}", None, after))
        elif (refusal := _find_refusal(row, owner)) is not None:
            refused.append(f"key {start}: {refusal}")
        elif row.successor is not None or all(getattr(row, name) == value for name, value in columns.items()):
            same += 1  # A rotated key keeps the end that its rotation set.
        else:
            await key_rows.transition(connection, row, **columns)
            changed_owners.append(owner.name)
            before = drop_empty_values({name: getattr(row, name) for name in columns})
            entries.append(AuditEntry("key.change", f"{owner.name}/{row.id}", before, drop_empty_values(columns)))
    await key_rows.insert_rows(connection, new)
    await _record(connection, caller, "customer", changed_owners, entries)
    return ImportResult(len(new), len(entries) - len(new), same, tuple(refused))


def _find_refusal(row: KeyRow, owner: CustomerRow) -> str | None:
    """Return the reason why a file may not change a stored key for this customer, or None."""
    if row.customer != owner.id:
        return "is of another customer"
    return None if row.revoked_at is None else "was revoked, and stays so"


async def _import_flags(connection: AsyncConnection, caller: Caller, batch: Sequence[tuple[str, Flag]]) -> ImportResult:
    flags, names = schema.flags, [name for name, _ in batch]
    rows = await connection.execute(lock_rows(sa.select(flags).where(flags.c.name.in_(names)).order_by(flags.c.name)))
    existing = {row.name: FlagRow(*row) for row in rows}
    entries, added, changed = [], 0, 0
    known_by = await resolve_names(connection, (customer for _, flag in batch for customer in flag.customers))
    for name, flag_of_file in batch:
        named = tuple(known_by.get(customer, customer) for customer in flag_of_file.customers)
        flag = flag_of_file.model_copy(update={"customers": named}) if named else flag_of_file
        settings, row = flag.model_dump(mode="json", exclude_defaults=True), existing.get(name)
        text = orjson.dumps(settings).decode()
        if row is None:
            added += 1
            await connection.execute(sa.insert(flags), [FlagRow(name, text, now_ms(), 1)._asdict()])
        elif row.settings != text:
            changed += 1
            values = {"settings": text, "updated_at": now_ms(), "version": row.version + 1}
            await connection.execute(sa.update(flags).where(flags.c.name == name).values(values))
        else:
            continue
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


def _build_key_columns(key: Key) -> Columns:
    """Return the columns of a key that a file sets."""
    limits = [limit.model_dump(mode="json", by_alias=True, exclude_defaults=True) for limit in key.limits]
    return {
        "scopes": None if key.scopes is None else orjson.dumps(sorted(key.scopes)).decode(),
        "limits": orjson.dumps(limits).decode() if limits else None,
        "expires_at": None if key.expires is None else round(key.expires * 1000),
    }


def _split_batches(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while batch := list(islice(left, AT_ONCE)):
        yield batch


async def export_lines(connection: AsyncConnection, *, for_edges: bool = False) -> AsyncIterator[str]:
    """Yield all customers, keys and flags as the lines of a file that collectors can include.

    Edges can include it too if it has no `accounts`: with `for_edges` they are left out.
    """
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
    if for_edges:
        return
    begun = False
    async for name, account in _stream_accounts(connection):
        if account:
            if not begun:
                yield "accounts:"
                begun = True
            yield f"  {_format_json(name)}: {_format_json(account)}"


async def _stream_accounts(connection: AsyncConnection) -> AsyncIterator[tuple[str, dict[str, object]]]:
    """Yield the name and the account of each customer that is not being deleted, with one page in memory at a time.

    Unreadable rows are set aside.
    """
    table, after = schema.customers, ""
    current = table.c.deleting_since.is_(None)
    following = sa.select(table.c.name).where(current).order_by(table.c.name).limit(PAGE_CUSTOMERS)
    # Names are read first, because a page may have no readable row.
    while page := list(await connection.scalars(following.where(table.c.name > after))):
        between = current & table.c.name.between(page[0], page[-1])
        rows = await customer_rows.fetch_rows(connection, sa.select(table).where(between).order_by(table.c.name))
        for account in parse_rows(table.name, rows, _parse_account, attrgetter("id")):
            yield account
        after = page[-1]


def _parse_account(row: CustomerRow) -> tuple[str, dict[str, object]]:
    """Return a customer's name and its account as files write it, without empty values."""
    span = None if row.rotate_every is None else format_seconds(row.rotate_every)
    account = {"name": row.display_name, "external_id": row.external_id, "metadata": orjson.loads(row.metadata)}
    return row.name, drop_empty_values(account | {"rotate_every": span})


def _format_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _format_timestamp(second: float) -> str:
    at = datetime.fromtimestamp(second, UTC)
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
