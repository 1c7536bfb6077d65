"""Customers as data: each change with its audit entry and its row in the outbox, in one transaction."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, documents, faults
from edgeproxy.collector.accounts.audit import Caller, Entry
from edgeproxy.collector.accounts.change import Refused, must_match
from edgeproxy.collector.accounts.ids import is_id, moment, new_id, now_ms
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CustomerResponse
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.page_tables import contacts, sessions, sign_in_links
from edgeproxy.collector.database.quota_tables import holdings, past_holdings
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.config.alerts import MAIL_ADDRESS
from edgeproxy.config.collector import Settings
from edgeproxy.config.models import Customer
from edgeproxy.config.parsers import NAME

SETTINGS = tuple(Customer.model_fields)
OWN = ("external_id", "metadata", "rotate_every")
"""The fields of a customer that edges are not told."""
TOLD = ("limits", "quotas", "flags", "paused", "regions")
"""Settings that are told also where they are as by default."""
ALERT_ADDRESS = "alert_email"
"""The name in a customer's metadata under which the customer's own alerts have an address."""
ERASED_AT_ONCE = 100
"""Customers who are erased in one transaction."""
NAMES_MAX = 1000
"""Names that are looked up at once."""
NOT_THERE = "there is no such customer"


def written(customer: Customer) -> dict[str, Any]:
    """Write settings as files have them, without what is as by default."""
    made: dict[str, Any] = customer.model_dump(mode="json", by_alias=True, include=set(SETTINGS), exclude_defaults=True)
    return made


def told(row: Any) -> CustomerResponse:
    """Tell a customer as the API does."""
    said: Any = {
        "id": row.id,
        "name": row.name,
        **dict.fromkeys(TOLD),
        "flags": [],
        **orjson.loads(row.settings),
        "external_id": row.external_id,
        "metadata": orjson.loads(row.metadata),
        "rotate_every": None if row.rotate_every is None else f"{row.rotate_every}s",
        "created_at": moment(row.created_at),
        "state": state_of(row),
        "deleting_since": moment(row.deleting_since),
    }
    customer: CustomerResponse = said
    return customer


def state_of(row: Any) -> str:
    """Say how a customer is: `active`, `paused`, `deleting` or `deleted`."""
    if row.erased_at is not None:
        return "deleted"
    if row.deleting_since is not None:
        return "deleting"
    return "paused" if "paused" in orjson.loads(row.settings) else "active"


async def find(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Any:
    """Return the row of a customer by id or name; raises Refused where there is none."""
    row = await look(connection, ref, lock=lock)
    if row is None:
        raise Refused(404, NOT_THERE)
    return row


async def look(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Any:
    """Return the row of a customer by id or name; None where there is none."""
    if not NAME.fullmatch(ref):  # Not every database takes a NUL, even to find nothing.
        return None
    column = customers.c.id if is_id(ref) else customers.c.name
    statement = sa.select(customers).where(column == ref)
    return (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def name_of(connection: AsyncConnection, ref: str) -> str | None:
    """Return the name of a customer by id or name; None where there is none."""
    row = await look(connection, ref)
    return None if row is None else str(row.name)


async def tier_of(connection: AsyncConnection, name: str) -> str | None:
    """The tier of the customer of this name; None where the database has none such."""
    one = sa.select(customers.c.tier).where(customers.c.name == name)
    return (await connection.execute(one)).scalar_one_or_none()


async def listing(
    connection: AsyncConnection, after: str | None, limit: int, **only: str | None
) -> list[CustomerResponse]:
    """Tell at most `limit` customers behind the id `after`, oldest first; `only` those with these columns."""
    statement = sa.select(customers).order_by(customers.c.id).limit(limit)
    if after is not None:
        statement = statement.where(customers.c.id > after)
    wanted = [customers.c[name] == value for name, value in only.items() if value is not None]
    return [told(row) for row in await connection.execute(statement.where(*wanted))]


async def known_among(connection: AsyncConnection, names: Iterable[str]) -> set[str]:
    """Return which of these names customers have."""
    wanted, there = list(names), set()
    for at in range(0, len(wanted), NAMES_MAX):
        some = customers.c.name.in_(wanted[at : at + NAMES_MAX])
        there |= set((await connection.execute(sa.select(customers.c.name).where(some))).scalars())
    return there


async def alert_addresses(connection: AsyncConnection, names: Iterable[str]) -> dict[str, str]:
    """Return where mail about themselves goes of those customers whose metadata say so: ALERT_ADDRESS."""
    wanted, found = list(names), {}
    for at in range(0, len(wanted), NAMES_MAX):
        some = customers.c.name.in_(wanted[at : at + NAMES_MAX])
        for row in await connection.execute(sa.select(customers.c.name, customers.c.metadata).where(some)):
            address = orjson.loads(row.metadata).get(ALERT_ADDRESS, "")
            if MAIL_ADDRESS.fullmatch(address):
                found[row.name] = address
    return found


async def create(
    connection: AsyncConnection, caller: Caller, new: CreateCustomerRequest, known: Settings
) -> CustomerResponse:
    """Make a customer; raises Refused."""
    settings = written(new)
    must_be_whole(settings, known)
    await _must_be_free(connection, new.name, new.external_id)
    row = row_of(new, settings)
    await connection.execute(sa.insert(customers), [row])
    made = await find(connection, row["id"])
    await documents.note(connection, "customer", [new.name])
    await audit.append(connection, caller, Entry("customer.create", new.name, None, shown(told(made))))
    return told(made)


def row_of(new: CreateCustomerRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """Make the row of a new customer."""
    return {
        "id": new_id(),
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


async def change(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    said: BaseModel,
    known: Settings,
    *,
    match: frozenset[int] | None = None,
) -> tuple[CustomerResponse, int]:
    """Change what is `said` of a customer, and return it with its version; raises Refused."""
    row = await find(connection, ref, lock=True)
    must_match(row.version, match)
    if row.erased_at is not None:
        raise Refused(409, "the customer was deleted")
    fields = {name: getattr(said, name) for name in said.model_fields_set}
    if fields.get("tier", "") is None:
        raise Refused(422, "some fields cannot be used", [("tier", "cannot be taken away, name another one")])
    settings = merged(orjson.loads(row.settings), fields)
    must_be_whole(settings, known)
    values: dict[str, Any] = {"settings": orjson.dumps(settings).decode(), "tier": settings["tier"]}
    if "metadata" in fields:
        values["metadata"] = orjson.dumps(fields["metadata"] or {}).decode()
    values |= {name: fields[name] for name in ("external_id", "rotate_every") if name in fields}
    if values.get("external_id") not in (None, row.external_id):
        await _must_be_free(connection, None, values["external_id"])
    if all(getattr(row, name) == value for name, value in values.items()):
        return told(row), row.version
    before = told(row)
    await _update(connection, row, values)
    after_row = await find(connection, row.id)
    after = told(after_row)
    if settings != orjson.loads(row.settings):
        await documents.note(connection, "customer", [row.name])
    await audit.append(connection, caller, Entry("customer.change", row.name, *differing(before, after)))
    return after, after_row.version


async def start_deletion(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> CustomerResponse:
    """Begin to delete a customer: edges serve nobody of them any more, what was counted stays. Raises Refused."""
    row = await find(connection, ref, lock=True)
    must_match(row.version, match)
    if row.deleting_since is None:
        await _update(connection, row, {"deleting_since": now_ms()})
        await documents.note(connection, "customer", [row.name])
        state = {"state": state_of(row)}
        await audit.append(connection, caller, Entry("customer.delete", row.name, state, {"state": "deleting"}))
    return told(await find(connection, row.id))


async def take_deletion_back(
    connection: AsyncConnection, caller: Caller, ref: str, *, match: frozenset[int] | None = None
) -> tuple[CustomerResponse, int]:
    """Have a customer back whose deletion has begun and who is not erased yet; edges serve them again. Raises Refused.

    A subscription that ended meanwhile stays ended.
    """
    row = await find(connection, ref, lock=True)
    must_match(row.version, match)
    if row.erased_at is not None:
        raise Refused(409, "the customer is erased: keys and settings are gone")
    if row.deleting_since is None:
        raise Refused(409, "the customer is not being deleted")
    await _update(connection, row, {"deleting_since": None})
    await documents.note(connection, "customer", [row.name])
    after = await find(connection, row.id)
    states = {"state": state_of(row)}, {"state": state_of(after)}
    await audit.append(connection, caller, Entry("customer.restore", row.name, *states))
    return told(after), after.version


async def forget_alert_address(connection: AsyncConnection, caller: Caller, row: Any) -> None:
    """Have the own alerts of a customer, a row, mailed to nobody. Nothing else of them can stand in the way of that."""
    metadata = {name: value for name, value in orjson.loads(row.metadata).items() if name != ALERT_ADDRESS}
    await _update(connection, row, {"metadata": orjson.dumps(metadata).decode()})
    after = await find(connection, row.id)
    await audit.append(connection, caller, Entry("customer.change", row.name, *differing(told(row), told(after))))


async def erase(connection: AsyncConnection, before: int) -> list[str]:
    """Erase customers whose deletion began before this Unix millisecond, some at a time; return their names.

    Their keys and contacts go, and all that is said of them but the name, the id and the tier: those are in the ledger
    and on invoices, and nobody else may get them.
    """
    due = customers.c.deleting_since.is_not(None) & (customers.c.deleting_since < before)
    due &= customers.c.erased_at.is_(None)
    chosen = sa.select(customers).where(due).order_by(customers.c.deleting_since).limit(ERASED_AT_ONCE)
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
        bare = orjson.dumps({"tier": row.tier}).decode()
        left = {"external_id": None, "metadata": "{}", "rotate_every": None, "settings": bare}
        await _update(connection, row, {**left, "erased_at": now_ms()})
        entry = Entry("customer.erase", row.name, {"state": "deleting"}, {"state": "deleted"})
        await audit.append(connection, Caller("collector"), entry)
    return [row.name for row in rows]


def merged(settings: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return settings with other fields, as files would have them; what is None is as by default."""
    kept = Customer.model_validate(settings)
    changes = {
        name: Customer.model_fields[name].get_default() if value is None else value
        for name, value in fields.items()
        if name in SETTINGS
    }
    return written(kept.model_copy(update=changes))


def must_be_whole(settings: dict[str, Any], known: Settings) -> None:
    """Raise Refused where something of the settings contradicts the rest."""
    wrong = faults.of_customer(settings, known)
    if wrong:
        raise Refused(422, "some fields cannot be used", wrong)


def shown(one: Mapping[str, Any]) -> dict[str, Any]:
    """Show a customer in the audit log: what is there."""
    return {name: value for name, value in one.items() if value not in (None, [], {})}


def differing(before: Any, after: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is another one in both: the fields of each."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {name: before.get(name) for name in names}, {name: after.get(name) for name in names}


async def _update(connection: AsyncConnection, row: Any, values: dict[str, Any]) -> None:
    statement = sa.update(customers).where(customers.c.id == row.id)
    await connection.execute(statement.values(**values, version=row.version + 1))


async def _must_be_free(connection: AsyncConnection, name: str | None, external_id: str | None) -> None:
    """Raise Refused where another customer has this name or external id."""
    for column, value in ((customers.c.name, name), (customers.c.external_id, external_id)):
        if value is None:
            continue
        if (await connection.execute(sa.select(customers.c.id).where(column == value))).one_or_none() is not None:
            raise Refused(409, f"there is a customer with this {column.name} already")
