"""Customers as data: each change with its audit entry and its outbox row, in one transaction."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import cast

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customer_rows, documents, faults, list_figures
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import (
    ChangeRejectedError,
    compute_difference,
    drop_empty_values,
    reject_field,
    reject_fields,
    require_version,
)
from edgeproxy.collector.accounts.customer_refs import match_ref
from edgeproxy.collector.accounts.ids import build_pseudonym, generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import (
    CreateCustomerRequest,
    CustomerResponse,
    ListedCustomer,
    dump_settings,
)
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import (
    AccountStateError,
    CustomerState,
    compute_customer_state,
    require_customer_transition,
)
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.page_order import by_character, order_page, parse_sort
from edgeproxy.collector.database.quota_tables import limit_raises
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.residency_tables import customer_moves
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.statements import AnyColumn, AnySelect, lock_rows
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_object, parse_rows, reading_row
from edgeproxy.collector.encryption.rows import fetch_page, match_value
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.collector.alerts import MAIL_ADDRESS
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer
from edgeproxy.config.parsers import NAME

SETTING_NAMES = tuple(Customer.model_fields)
ALWAYS_SHOWN = ("limits", "quotas", "flags", "paused", "regions")
"""Settings that a response always contains, even with their default."""
ALERT_ADDRESS = "alert_email"
"""The metadata key of a customer's address for its own alerts."""
BUSINESS = "business"
"""The metadata key that marks a customer as a business: true."""
SORTS: Mapping[str, AnyColumn] = {
    "created_at": customers.c.id,
    "name": customer_rows.DISPLAY_NAME,
    "tier": customers.c.tier,
    "last_call_on": list_figures.LAST_CALL,
    "plan": list_figures.PLAN,
    "spent": list_figures.SPENT,
    "overdue": customers.c.overdue,
    "cap_percent": list_figures.CAP_USED,
}
"""The columns that customers can be sorted by. Ids grow with time. Each column has an index."""
MONEY_SORTS = frozenset({"plan", "spent", "overdue", "cap_percent"})
"""The orders that reveal amounts."""
NAMES_MAX = 1000
"""The most names that one statement looks up."""
NOT_FOUND = "there is no such customer"

Columns = dict[str, str | int | None]
"""Columns of a row, by name."""


def to_response(row: CustomerRow) -> CustomerResponse:
    """Return a customer in the form of the API. Raises UnreadableRowError."""
    with reading_row(customers.name, row.id):
        return _build_response(row)


def _build_response(row: CustomerRow) -> CustomerResponse:
    Customer.model_validate_json(row.settings)  # Readers rely on its fields.
    values = {
        "id": row.id,
        "name": row.name,
        **dict.fromkeys(ALWAYS_SHOWN),
        "flags": [],
        **orjson.loads(row.settings),
        "external_id": row.external_id,
        "metadata": parse_object(row.metadata),
        "rotate_every": None if row.rotate_every is None else f"{row.rotate_every}s",
        "created_at": format_timestamp(row.created_at),
        "state": compute_customer_state(row).value,
        "deleting_since": format_timestamp(row.deleting_since),
        "currency": row.currency,
    }
    return cast(CustomerResponse, values)


def to_listed(row: CustomerRow, *, shows_money: bool) -> ListedCustomer:
    """Return a customer of a list, with its figures. Raises UnreadableRowError."""
    day = None if row.last_call_on is None else format_timestamp(row.last_call_on * 1000)[:10]
    listed = cast(ListedCustomer, {**to_response(row), "last_call_on": day})
    if shows_money:
        listed["plan"] = row.plan
        listed["spent"], listed["overdue"] = row.spent, row.overdue
        listed["spent_at"] = None if row.spent_at is None else format_timestamp(row.spent_at * 1000)
        listed["cap_percent"] = None if row.cap_used is None else row.cap_used / 100
    return listed


def is_business(row: CustomerRow) -> bool:
    """Return whether a customer is marked as a business. Raises UnreadableRowError."""
    return to_response(row)["metadata"].get(BUSINESS) == "true"


async def get_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> CustomerRow:
    """Return the row of a customer by id, name or pseudonym. Raises ChangeRejectedError if it does not exist."""
    row = await find_row(connection, ref, lock=lock)
    if row is None:
        raise ChangeRejectedError(account_codes.CUSTOMER_NOT_FOUND, NOT_FOUND)
    return row


async def find_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> CustomerRow | None:
    """Return the row of a customer by id, name or pseudonym, or None."""
    if lock:
        return await _find_row(connection, ref, customer_rows.fetch_row, lock=True)
    return await fetch_once(("customer", ref), lambda: _find_row(connection, ref, customer_rows.fetch_row, lock=False))


async def find_stored_row(connection: AsyncConnection, ref: str) -> CustomerRow | None:
    """Return the locked row of a customer like `find_row`, but as stored: see `fetch_stored_rows`."""
    return await _find_row(connection, ref, customer_rows.fetch_stored_rows, lock=True)


async def _find_row(
    connection: AsyncConnection,
    ref: str,
    fetch: Callable[[AsyncConnection, AnySelect], Awaitable[list[CustomerRow]]],
    *,
    lock: bool,
) -> CustomerRow | None:
    if not NAME.fullmatch(ref):  # Some databases reject a NUL even in a query.
        return None
    is_named = (customers.c.name == ref) | (customers.c.display_name == ref)
    statement = sa.select(customers).where(customers.c.id == ref if is_id(ref) else is_named)
    rows = await fetch(connection, lock_rows(statement) if lock else statement)
    return next(iter(rows), None)


async def lock_not_erased(connection: AsyncConnection, ref: str) -> CustomerRow:
    """Return the locked row of a customer that is not erased, so that its personal data may be stored.

    Raises ChangeRejectedError if the customer does not exist, and AccountStateError if it is erased.
    """
    row = await get_row(connection, ref, lock=True)
    _require_not_erased(row)
    return row


async def lock_customers(connection: AsyncConnection, names: Iterable[str]) -> dict[str, CustomerRow]:
    """Return the locked rows of the customers with these names, by name.

    They are locked in the character order of names, as by `list_figures`, so that two transactions never wait for each
    other.
    """
    order = by_character(connection, customers.c.name)
    statement = sa.select(customers).where(customers.c.name.in_(names)).order_by(order)
    return {row.name: row for row in await customer_rows.fetch_rows(connection, lock_rows(statement))}


def _require_not_erased(row: CustomerRow) -> None:
    if row.erased_at is not None:
        raise AccountStateError(account_codes.CUSTOMER_ERASED, "the customer was deleted")


async def transition(connection: AsyncConnection, before: CustomerRow, **columns: str | int | None) -> CustomerRow:
    """Write columns of a customer, and return its new row. All changes of customers go through this function.

    Raises AccountStateError if CUSTOMER_TRANSITIONS does not allow the step, or if the row has changed since.
    """
    after = before._replace(**columns, version=before.version + 1)  # type: ignore[arg-type]
    require_customer_transition(before, after)
    if not await customer_rows.update_row(connection, before, {**columns, "version": after.version}):
        raise AccountStateError(request_codes.CHANGED_MEANWHILE, "the customer has changed meanwhile")
    if before.deleting_since is None and after.deleting_since is not None:  # A restored customer gets its usual limits.
        await connection.execute(sa.delete(limit_raises).where(limit_raises.c.customer == before.id))
    return after


async def find_name(connection: AsyncConnection, ref: str) -> str | None:
    """Return the ledger's name of a customer (its name or pseudonym) by id, name or pseudonym, or None."""
    row = await find_row(connection, ref)
    return None if row is None else row.name


async def find_tier(connection: AsyncConnection, name: str) -> str | None:
    """Return the tier of the customer with this name, or None if the database has no such customer."""
    statement = sa.select(customers.c.tier).where(customers.c.name == name)
    return await connection.scalar(statement)


async def list_customers(
    connection: AsyncConnection,
    after: str | None,
    limit: int,
    *,
    sort: str = "created_at",
    ref: str | None = None,
    conditions: Sequence[sa.ColumnElement[bool]] = (),
    shows_money: bool = False,
    **filters: str | None,
) -> ReadPage[ListedCustomer]:
    """Return at most `limit` customers after the id `after`, in the order of `sort`: see SORTS.

    `ref` selects the customers that it names (customer_refs.py). `filters` are columns and their values; None leaves a
    column out. `conditions` are further ones, of `list_figures.list_conditions`.
    """
    order, descending = parse_sort(sort)
    statement = await order_page(
        connection, sa.select(customers), customers.c.id, SORTS[order], after, descending=descending
    )
    chosen = []
    for name, value in filters.items():
        if value is not None and name == "external_id":
            chosen.append(match_value(connection, "customers", name, value))
        elif value is not None:
            column = customers.c[name]  # The index of tiers is in character order, that of names is not.
            chosen.append((by_character(connection, column) if name == "tier" else column) == value)
    if ref is not None:
        chosen.append(match_ref(connection, ref))
    return await fetch_page(
        connection,
        customers.name,
        statement.where(*chosen, *conditions),
        limit,
        lambda row: to_listed(CustomerRow(**row), shows_money=shows_money),
    )


async def filter_existing_names(connection: AsyncConnection, names: Iterable[str]) -> set[str]:
    """Return the names among these that belong to customers."""
    ordered, existing = list(names), set()
    for at in range(0, len(ordered), NAMES_MAX):
        some = customers.c.name.in_(ordered[at : at + NAMES_MAX])
        existing |= set(await connection.scalars(sa.select(customers.c.name).where(some)))
    return existing


async def fetch_alert_addresses(connection: AsyncConnection, names: Iterable[str]) -> dict[str, str]:
    """Return the addresses for customers' own alerts, by name, without customers that have none."""
    ordered, addresses = list(names), dict[str, str]()
    for at in range(0, len(ordered), NAMES_MAX):
        some = customers.c.name.in_(ordered[at : at + NAMES_MAX])
        rows = await customer_rows.fetch_rows(connection, sa.select(customers).where(some))
        parsed = parse_rows(customers.name, rows, _parse_alert_address, attrgetter("id"))
        addresses |= {name: address for name, address in parsed if MAIL_ADDRESS.fullmatch(address)}
    return addresses


def _parse_alert_address(row: CustomerRow) -> tuple[str, str]:
    """Return the name of a customer and the address for its own alerts, or an empty one."""
    return row.name, orjson.loads(row.metadata).get(ALERT_ADDRESS, "")


async def create_customer(
    connection: AsyncConnection, caller: Caller, new: CreateCustomerRequest, collector_settings: CollectorSettings
) -> CustomerResponse:
    """Create a customer. Raises ChangeRejectedError."""
    require_valid_settings(new, collector_settings)
    await require_unused(connection, new.name, new.external_id)
    row = build_row(new.name, new, has_pseudonym=has_pseudonyms(collector_settings))._replace(
        external_id=new.external_id,
        metadata=orjson.dumps(new.metadata or {}).decode(),
        rotate_every=new.rotate_every,
    )
    await customer_rows.insert_rows(connection, [row])
    created = to_response(row)
    await documents.enqueue_changes(connection, "customer", [row.name])
    entry = AuditEntry("customer.create", row.name, None, drop_empty_values(created))
    await audit.append_entry(connection, caller, entry)
    return created


def has_pseudonyms(settings: CollectorSettings) -> bool:
    """Return whether new customers get a pseudonym."""
    return settings.privacy is not None and settings.privacy.pseudonyms


def build_row(
    name: str, customer: Customer, *, has_pseudonym: bool = False, known_id: str | None = None
) -> CustomerRow:
    """Return the row of a new customer with these settings. With `has_pseudonym` its name is a pseudonym.

    `known_id` is the id that the customer had in another database.
    """
    id_ = known_id or generate_id()
    return CustomerRow(
        id=id_,
        name=build_pseudonym(id_) if has_pseudonym else name,
        display_name=name if has_pseudonym else None,
        external_id=None,
        tier=customer.tier,
        settings=orjson.dumps(dump_settings(customer)).decode(),
        metadata="{}",
        rotate_every=None,
        created_at=now_ms(),
        deleting_since=None,
        erased_at=None,
        version=1,
    )


async def update_customer(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    change: BaseModel,
    collector_settings: CollectorSettings,
    *,
    match: frozenset[int] | None = None,
) -> tuple[CustomerResponse, int]:
    """Update the fields of a customer that are set in `change`, an UpdateCustomerRequest.

    Returns the customer and its version. `match` are the versions that may be changed. Raises ChangeRejectedError.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    _require_not_erased(row)
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    if fields.get("tier", "") is None:
        raise reject_field("tier", "cannot be taken away, name another one")
    customer = merge_settings(Customer.model_validate_json(row.settings), fields)
    require_valid_settings(customer, collector_settings)
    values: Columns = {"settings": orjson.dumps(dump_settings(customer)).decode(), "tier": customer.tier}
    if "metadata" in fields:
        values["metadata"] = orjson.dumps(fields["metadata"] or {}).decode()
    values |= {name: fields[name] for name in ("external_id", "rotate_every") if name in fields}
    if fields.get("external_id") not in (None, row.external_id):
        await require_unused(connection, None, fields["external_id"])
    if all(getattr(row, name) == value for name, value in values.items()):
        return to_response(row), row.version
    after = await transition(connection, row, **values)
    if after.settings != row.settings:
        await documents.enqueue_changes(connection, "customer", [row.name])
    if after.metadata != row.metadata:
        await note_payer_change(connection, row.id)
    await _record_change(connection, caller, row, after)
    return to_response(after), after.version


async def start_deletion(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> CustomerResponse:
    """Start the deletion of a customer: edges refuse it from now on, and its usage stays.

    Raises ChangeRejectedError, also for a customer on its way to another residency, because the deletion would not
    reach its data there.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.deleting_since is None:
        await _require_not_leaving(connection, row)
        after = await transition(connection, row, deleting_since=now_ms())
        await _record_step(connection, caller, "customer.delete", row, after)
        row = after
    return to_response(row)


async def _require_not_leaving(connection: AsyncConnection, row: CustomerRow) -> None:
    move = customer_moves.c
    is_open = (move.customer == row.id) & (move.side == "out") & move.ended_at.is_(None)
    residency = await connection.scalar(sa.select(move.residency).where(is_open))
    if residency is not None:
        raise ChangeRejectedError(
            account_codes.CUSTOMER_MOVING,
            f"the customer is on its way to {residency}: end that move, or withdraw it, and delete it where it is",
        )


async def restore_customer(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> tuple[CustomerResponse, int]:
    """Undo the deletion of a customer that is not erased yet. Edges serve it again.

    A subscription that ended meanwhile stays ended. Raises ChangeRejectedError.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    state = compute_customer_state(row)
    if state is CustomerState.DELETED:
        raise ChangeRejectedError(account_codes.CUSTOMER_ERASED, "the customer is erased: keys and settings are gone")
    if state is not CustomerState.DELETING:
        raise ChangeRejectedError(account_codes.CUSTOMER_NOT_DELETING, "the customer is not being deleted")
    after = await transition(connection, row, deleting_since=None)
    await _record_step(connection, caller, "customer.restore", row, after)
    return to_response(after), after.version


async def note_payer_change(connection: AsyncConnection, customer: str) -> None:
    """Record that a customer's name or address on invoices may have changed, by id, so that Stripe is updated."""
    theirs = billing_customers.c.customer == customer
    async with across_customers(connection):
        await connection.execute(sa.update(billing_customers).where(theirs).values(email_changed_at=now_ms()))


async def delete_alert_address(connection: AsyncConnection, caller: Caller, row: CustomerRow) -> None:
    """Delete the address for a customer's own alerts.

    The settings are not checked, so that nothing else prevents it.
    """
    metadata = {name: value for name, value in orjson.loads(row.metadata).items() if name != ALERT_ADDRESS}
    after = await transition(connection, row, metadata=orjson.dumps(metadata).decode())
    await _record_change(connection, caller, row, after)


async def set_public_key(
    connection: AsyncConnection, caller: Caller, row: CustomerRow, public_key: str | None
) -> CustomerRow:
    """Set the public key of a locked customer, in the form of `public_keys.parse_public_key`; None removes it."""
    after = await transition(connection, row, public_key=public_key)
    was, now = (None if one is None else {"public_key": orjson.loads(one)} for one in (row.public_key, public_key))
    await audit.append_entry(connection, caller, AuditEntry("customer.public-key", row.name, was, now))
    return after


def merge_settings(customer: Customer, fields: JsonObject) -> Customer:
    """Return a customer with these fields merged into its settings. None resets a setting to its default."""
    changes = {
        name: Customer.model_fields[name].get_default() if value is None else value
        for name, value in fields.items()
        if name in SETTING_NAMES
    }
    return customer.model_copy(update=changes)


def require_valid_settings(customer: Customer, collector_settings: CollectorSettings) -> None:
    """Raise ChangeRejectedError(422) if settings contradict each other, or name an unknown tier or meter."""
    field_faults = faults.find_customer_faults(customer, collector_settings)
    if field_faults:
        raise reject_fields(field_faults)


async def _record_change(connection: AsyncConnection, caller: Caller, before: CustomerRow, after: CustomerRow) -> None:
    difference = compute_difference(to_response(before), to_response(after))
    await audit.append_entry(connection, caller, AuditEntry("customer.change", before.name, *difference))


async def _record_step(
    connection: AsyncConnection, caller: Caller, action: str, before: CustomerRow, after: CustomerRow
) -> None:
    """Publish a customer's new state to edges, and append its audit entry."""
    await documents.enqueue_changes(connection, "customer", [before.name])
    was, now = ({"state": compute_customer_state(row).value} for row in (before, after))
    await audit.append_entry(connection, caller, AuditEntry(action, before.name, was, now))


async def require_unused(connection: AsyncConnection, name: str | None, external_id: str | None) -> None:
    """Raise ChangeRejectedError if another customer has this name or external id."""
    conditions: dict[str, sa.ColumnElement[bool]] = {}
    if name is not None:
        conditions["name"] = (customers.c.name == name) | (customers.c.display_name == name)
    if external_id is not None:
        conditions["external_id"] = match_value(connection, "customers", "external_id", external_id)
    for field, condition in conditions.items():
        if (await connection.execute(sa.select(customers.c.id).where(condition))).first() is not None:
            code = account_codes.CUSTOMER_EXISTS if field == "name" else account_codes.EXTERNAL_ID_EXISTS
            raise ChangeRejectedError(code, f"there is a customer with this {field} already")
