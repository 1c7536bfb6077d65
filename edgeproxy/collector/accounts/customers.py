"""Customers as data: each change with its audit entry and its row in the outbox, in one transaction."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, documents, faults
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, require_version
from edgeproxy.collector.accounts.ids import generate_id, is_id, now_ms
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CustomerResponse
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.page_tables import contacts, sessions, sign_in_links
from edgeproxy.collector.database.quota_tables import holdings, past_holdings
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.config.collector.alerts import MAIL_ADDRESS
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer
from edgeproxy.config.parsers import NAME

SETTING_NAMES = tuple(Customer.model_fields)
DATABASE_FIELDS = ("external_id", "metadata", "rotate_every")
"""The fields of a customer that edges are not told."""
ALWAYS_SHOWN = ("limits", "quotas", "flags", "paused", "regions")
"""Settings that are told also where they are as by default."""
ALERT_ADDRESS = "alert_email"
"""The name in a customer's metadata under which the customer's own alerts have an address."""
ERASE_MAX = 100
"""Customers who are erased in one transaction."""
NAMES_MAX = 1000
"""Names that are looked up at once."""
NOT_FOUND = "there is no such customer"


def dump_settings(customer: Customer) -> dict[str, Any]:
    """Write settings as files have them, without what is as by default."""
    settings: dict[str, Any] = customer.model_dump(
        mode="json", by_alias=True, include=set(SETTING_NAMES), exclude_defaults=True
    )
    return settings


def to_response(row: Any) -> CustomerResponse:
    """Tell a customer as the API does."""
    values: Any = {
        "id": row.id,
        "name": row.name,
        **dict.fromkeys(ALWAYS_SHOWN),
        "flags": [],
        **orjson.loads(row.settings),
        "external_id": row.external_id,
        "metadata": orjson.loads(row.metadata),
        "rotate_every": None if row.rotate_every is None else f"{row.rotate_every}s",
        "created_at": format_timestamp(row.created_at),
        "state": compute_state(row),
        "deleting_since": format_timestamp(row.deleting_since),
    }
    customer: CustomerResponse = values
    return customer


def compute_state(row: Any) -> str:
    """Say how a customer is: `active`, `paused`, `deleting` or `deleted`."""
    if row.erased_at is not None:
        return "deleted"
    if row.deleting_since is not None:
        return "deleting"
    return "paused" if "paused" in orjson.loads(row.settings) else "active"


async def get_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Any:
    """Return the row of a customer by id or name; raises ChangeRejectedError where there is none."""
    row = await find_row(connection, ref, lock=lock)
    if row is None:
        raise ChangeRejectedError(404, NOT_FOUND)
    return row


async def find_row(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Any:
    """Return the row of a customer by id or name; None where there is none."""
    if not NAME.fullmatch(ref):  # Not every database takes a NUL, even to find nothing.
        return None
    column = customers.c.id if is_id(ref) else customers.c.name
    statement = sa.select(customers).where(column == ref)
    return (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def find_name(connection: AsyncConnection, ref: str) -> str | None:
    """Return the name of a customer by id or name; None where there is none."""
    row = await find_row(connection, ref)
    return None if row is None else str(row.name)


async def find_tier(connection: AsyncConnection, name: str) -> str | None:
    """The tier of the customer of this name; None where the database has none such."""
    statement = sa.select(customers.c.tier).where(customers.c.name == name)
    return (await connection.execute(statement)).scalar_one_or_none()


async def list_customers(
    connection: AsyncConnection, after: str | None, limit: int, **only: str | None
) -> list[CustomerResponse]:
    """Tell at most `limit` customers behind the id `after`, oldest first; `only` those with these columns."""
    statement = sa.select(customers).order_by(customers.c.id).limit(limit)
    if after is not None:
        statement = statement.where(customers.c.id > after)
    conditions = [customers.c[name] == value for name, value in only.items() if value is not None]
    return [to_response(row) for row in await connection.execute(statement.where(*conditions))]


async def filter_existing_names(connection: AsyncConnection, names: Iterable[str]) -> set[str]:
    """Return which of these names customers have."""
    ordered, existing = list(names), set()
    for at in range(0, len(ordered), NAMES_MAX):
        some = customers.c.name.in_(ordered[at : at + NAMES_MAX])
        existing |= set((await connection.execute(sa.select(customers.c.name).where(some))).scalars())
    return existing


async def fetch_alert_addresses(connection: AsyncConnection, names: Iterable[str]) -> dict[str, str]:
    """Return where mail about themselves goes of those customers whose metadata say so: ALERT_ADDRESS."""
    ordered, addresses = list(names), {}
    for at in range(0, len(ordered), NAMES_MAX):
        some = customers.c.name.in_(ordered[at : at + NAMES_MAX])
        for row in await connection.execute(sa.select(customers.c.name, customers.c.metadata).where(some)):
            address = orjson.loads(row.metadata).get(ALERT_ADDRESS, "")
            if MAIL_ADDRESS.fullmatch(address):
                addresses[row.name] = address
    return addresses


async def create_customer(
    connection: AsyncConnection, caller: Caller, new: CreateCustomerRequest, collector_settings: CollectorSettings
) -> CustomerResponse:
    """Make a customer; raises ChangeRejectedError."""
    settings = dump_settings(new)
    require_valid_settings(settings, collector_settings)
    await _require_unused(connection, new.name, new.external_id)
    row = build_row(new, settings)
    await connection.execute(sa.insert(customers), [row])
    created = await get_row(connection, row["id"])
    await documents.enqueue_changes(connection, "customer", [new.name])
    await audit.append_entry(
        connection, caller, AuditEntry("customer.create", new.name, None, drop_empty_values(to_response(created)))
    )
    return to_response(created)


def build_row(new: CreateCustomerRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """Make the row of a new customer."""
    return {
        "id": generate_id(),
        "name": new.name,
        "external_id": new.external_id,
        "tier": new.tier,
        "settings": orjson.dumps(settings).decode(),
        "metadata": orjson.dumps(new.metadata or {}).decode(),
        "rotate_every": new.rotate_every,
        "created_at": now_ms(),
        "deleting_since": None,
        "version": 1,
    }


async def update_customer(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    change: BaseModel,
    collector_settings: CollectorSettings,
    *,
    match: frozenset[int] | None = None,
) -> tuple[CustomerResponse, int]:
    """Change what is `said` of a customer, and return it with its version; raises ChangeRejectedError."""
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.erased_at is not None:
        raise ChangeRejectedError(409, "the customer was deleted")
    fields = {name: getattr(change, name) for name in change.model_fields_set}
    if fields.get("tier", "") is None:
        raise ChangeRejectedError(
            422, "some fields cannot be used", [("tier", "cannot be taken away, name another one")]
        )
    settings = merge_settings(orjson.loads(row.settings), fields)
    require_valid_settings(settings, collector_settings)
    values: dict[str, Any] = {"settings": orjson.dumps(settings).decode(), "tier": settings["tier"]}
    if "metadata" in fields:
        values["metadata"] = orjson.dumps(fields["metadata"] or {}).decode()
    values |= {name: fields[name] for name in ("external_id", "rotate_every") if name in fields}
    if values.get("external_id") not in (None, row.external_id):
        await _require_unused(connection, None, values["external_id"])
    if all(getattr(row, name) == value for name, value in values.items()):
        return to_response(row), row.version
    before = to_response(row)
    await _update(connection, row, values)
    after_row = await get_row(connection, row.id)
    after = to_response(after_row)
    if settings != orjson.loads(row.settings):
        await documents.enqueue_changes(connection, "customer", [row.name])
    await audit.append_entry(
        connection, caller, AuditEntry("customer.change", row.name, *compute_difference(before, after))
    )
    return after, after_row.version


async def start_deletion(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> CustomerResponse:
    """Begin to delete a customer:

    edges serve nobody of them any more, what was counted stays. Raises ChangeRejectedError.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.deleting_since is None:
        await _update(connection, row, {"deleting_since": now_ms()})
        await documents.enqueue_changes(connection, "customer", [row.name])
        state = {"state": compute_state(row)}
        await audit.append_entry(
            connection, caller, AuditEntry("customer.delete", row.name, state, {"state": "deleting"})
        )
    return to_response(await get_row(connection, row.id))


async def restore_customer(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> tuple[CustomerResponse, int]:
    """Restore a customer whose deletion has begun and who is not erased yet; edges serve the customer again.

    Raises ChangeRejectedError. A subscription that ended meanwhile stays ended.
    """
    row = await get_row(connection, ref, lock=True)
    require_version(row.version, match)
    if row.erased_at is not None:
        raise ChangeRejectedError(409, "the customer is erased: keys and settings are gone")
    if row.deleting_since is None:
        raise ChangeRejectedError(409, "the customer is not being deleted")
    await _update(connection, row, {"deleting_since": None})
    await documents.enqueue_changes(connection, "customer", [row.name])
    after = await get_row(connection, row.id)
    states = {"state": compute_state(row)}, {"state": compute_state(after)}
    await audit.append_entry(connection, caller, AuditEntry("customer.restore", row.name, *states))
    return to_response(after), after.version


async def delete_alert_address(connection: AsyncConnection, caller: Caller, row: Any) -> None:
    """Have the own alerts of a customer, a row, mailed to nobody. Nothing else of them can stand in the way of that."""
    metadata = {name: value for name, value in orjson.loads(row.metadata).items() if name != ALERT_ADDRESS}
    await _update(connection, row, {"metadata": orjson.dumps(metadata).decode()})
    after = await get_row(connection, row.id)
    await audit.append_entry(
        connection,
        caller,
        AuditEntry("customer.change", row.name, *compute_difference(to_response(row), to_response(after))),
    )


async def erase_customers(connection: AsyncConnection, before: int) -> list[str]:
    """Erase customers whose deletion began before this Unix millisecond, some at a time; return their names.

    Their keys and contacts go, and all that is said of them but the name, the id and the tier: those are in the ledger
    and on invoices, and nobody else may get them.
    """
    due = customers.c.deleting_since.is_not(None) & (customers.c.deleting_since < before)
    due &= customers.c.erased_at.is_(None)
    chosen = sa.select(customers).where(due).order_by(customers.c.deleting_since).limit(ERASE_MAX)
    rows = (await connection.execute(chosen.with_for_update(skip_locked=True))).all()
    for row in rows:
        await connection.execute(sa.delete(keys).where(keys.c.customer == row.id))
        await connection.execute(sa.delete(contacts).where(contacts.c.customer == row.id))
        # The ids of what held places go, and from when to when it did stays, as that is billed.
        now, held = now_ms(), holdings.c
        ended_at = sa.case((held.expires_at < now, held.expires_at), else_=now)
        own = sa.select(held.customer, held.meter, held.taken_at, ended_at).where(held.customer == row.name)
        columns = ["customer", "meter", "taken_at", "ended_at"]
        await connection.execute(sa.insert(past_holdings).from_select(columns, own))
        for table in (sessions, sign_in_links, holdings):
            await connection.execute(sa.delete(table).where(table.c.customer == row.name))
        mailed = alert_deliveries.c.alert.in_(sa.select(alerts.c.id).where(alerts.c.customer == row.name))
        await connection.execute(sa.delete(alert_deliveries).where(mailed, alert_deliveries.c.recipient.is_not(None)))
        bare_settings = orjson.dumps({"tier": row.tier}).decode()
        left = {"external_id": None, "metadata": "{}", "rotate_every": None, "settings": bare_settings}
        await _update(connection, row, {**left, "erased_at": now_ms()})
        entry = AuditEntry("customer.erase", row.name, {"state": "deleting"}, {"state": "deleted"})
        await audit.append_entry(connection, Caller("collector"), entry)
    return [row.name for row in rows]


def merge_settings(settings: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return settings with other fields, as files would have them; what is None is as by default."""
    current = Customer.model_validate(settings)
    changes = {
        name: Customer.model_fields[name].get_default() if value is None else value
        for name, value in fields.items()
        if name in SETTING_NAMES
    }
    return dump_settings(current.model_copy(update=changes))


def require_valid_settings(settings: dict[str, Any], collector_settings: CollectorSettings) -> None:
    """Raise ChangeRejectedError where something of the settings contradicts the rest."""
    field_faults = faults.find_customer_faults(settings, collector_settings)
    if field_faults:
        raise ChangeRejectedError(422, "some fields cannot be used", field_faults)


def drop_empty_values(customer: Mapping[str, Any]) -> dict[str, Any]:
    """Show a customer in the audit log: what is there."""
    return {name: value for name, value in customer.items() if value not in (None, [], {})}


def compute_difference(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is another one in both: the fields of each."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


async def _update(connection: AsyncConnection, row: Any, values: dict[str, Any]) -> None:
    statement = sa.update(customers).where(customers.c.id == row.id)
    await connection.execute(statement.values(**values, version=row.version + 1))


async def _require_unused(connection: AsyncConnection, name: str | None, external_id: str | None) -> None:
    """Raise ChangeRejectedError where another customer has this name or external id."""
    for column, value in ((customers.c.name, name), (customers.c.external_id, external_id)):
        if value is None:
            continue
        if (await connection.execute(sa.select(customers.c.id).where(column == value))).one_or_none() is not None:
            raise ChangeRejectedError(409, f"there is a customer with this {column.name} already")
