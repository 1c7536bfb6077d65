"""The erasure of customers according to the map of personal data.

An erasure is one transaction: a process that dies in it has erased nothing, and erases again. Only events are cleared
before it, in several transactions, because a customer may have millions; the erasure clears the rest. A customer's id,
tier, and name or pseudonym stay: they are in the ledger and on invoices, and no other customer may reuse them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit, customers, documents
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.customer_rows import fetch_stored_rows
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.accounts.states import DAY_MS, compute_customer_state
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.marks import Erasure
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.quota_tables import holdings, past_holdings
from edgeproxy.collector.database.residency_tables import customer_moves
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import dead_letters, events, metadata
from edgeproxy.collector.database.statements import AnySelect, lock_rows
from edgeproxy.collector.database.unreadable_rows import set_aside
from edgeproxy.collector.encryption.data_keys import forget_data_keys
from edgeproxy.collector.privacy.own_requests import finish_deletion
from edgeproxy.collector.privacy.own_rows import select_own
from edgeproxy.collector.privacy.rejected_events import match_events, names_one

ERASE_MAX = 100
"""The most customers that one transaction erases."""
EVENTS_MAX = 5000
"""The most events that one transaction clears before an erasure."""
COLLECTOR = Caller("collector")
LATE_MS = 8 * DAY_MS
"""For how long rows that arrive after an erasure are erased, too. A cut-off edge ships for up to a week."""
LATE_KEPT = frozenset(("alerts", "alert_deliveries", "alert_handling"))
"""Tables whose rows are kept even if they arrived after the erasure."""


class ErasedCustomer(NamedTuple):
    """A customer who is erased."""

    id: str
    name: str


async def list_due(connection: AsyncConnection, before: int) -> list[str]:
    """List the names of customers whose deletion began before this Unix millisecond, at most ERASE_MAX."""
    return [row.name for row in await fetch_stored_rows(connection, _select_due(before))]


async def erase_due_customers(database: Database, before: int) -> list[ErasedCustomer]:
    """Erase customers whose deletion began before this Unix millisecond, at most ERASE_MAX, and return them."""
    return await erase_selected(database, COLLECTOR, _select_due(before), skip_locked=True)


async def erase_selected(
    database: Database, caller: Caller, selected: AnySelect, *, skip_locked: bool = False
) -> list[ErasedCustomer]:
    """Erase the customers that a statement selects as whole rows, and return them.

    They are erased in one transaction. If that fails, each is erased in its own transaction. Customers who cannot be
    erased are set aside, so that they do not prevent the erasure of the others.
    """

    async def erase(statement: AnySelect) -> list[ErasedCustomer]:
        async with database.writing() as connection:
            rows = await fetch_stored_rows(connection, lock_rows(statement, skip_locked=skip_locked))
            await erase_customers(connection, caller, rows)
        return [ErasedCustomer(row.id, row.name) for row in rows]

    try:
        return await erase(selected)
    except CONNECTION_ERRORS:
        raise
    except Exception as error:  # Any error: one customer's data must not prevent the erasure of others.
        log.get_logger().error("customers are erased one by one", why=format_reason(error))
    erased: list[ErasedCustomer] = []
    async with database.reading() as connection:
        rows = await fetch_stored_rows(connection, selected)
    for row in rows:
        try:
            erased += await erase(selected.where(customers_table.c.id == row.id))
        except CONNECTION_ERRORS:
            raise
        except Exception as error:
            set_aside(customers_table.name, row.id, error)
    return erased


def _select_due(before: int) -> AnySelect:
    due = customers_table.c.deleting_since.is_not(None) & (customers_table.c.deleting_since < before)
    due &= customers_table.c.erased_at.is_(None) & ~is_moving_unsettled()
    return sa.select(customers_table).where(due).order_by(customers_table.c.deleting_since).limit(ERASE_MAX)


def is_moving_unsettled() -> sa.ColumnElement[bool]:
    """Return the condition that a customer is moving to another residency, or has credits that must go there."""
    move, later = customer_moves.c, customer_moves.alias()
    has_credits = sa.exists().where(credit_balances.c.customer == move.customer, credit_balances.c.balance != 0)
    is_unsettled = move.ended_at.is_(None) | move.promised.is_not(None) | ((move.state == "left") & has_credits)
    is_back = sa.exists().where(later.c.customer == move.customer, later.c.created_at > move.created_at)
    return sa.exists().where(move.customer == customers_table.c.id, move.side == "out", is_unsettled, ~is_back)


async def is_unsettled(connection: AsyncConnection, customer: str) -> bool:
    """Return whether a customer, by id, must not be erased before its move to another residency is settled."""
    statement = sa.select(customers_table.c.id).where(customers_table.c.id == customer, is_moving_unsettled())
    return (await connection.execute(statement)).first() is not None


async def erase_customers(connection: AsyncConnection, caller: Caller, rows: Sequence[CustomerRow]) -> Counter[str]:
    """Erase customers with locked rows. Return the number of deleted or cleared rows by table.

    A customer that is not deleted yet is deleted first, so that edges refuse it. Raises AccountStateError.
    """
    if not rows:
        return Counter()
    counts = await _erase_rows(connection, [row.id for row in rows], [row.name for row in rows])
    # A service may have written the name of a customer with a pseudonym in a place without pseudonyms.
    display_names = frozenset(row.display_name for row in rows if row.display_name)
    counts["dead_letters"] += await _delete_dead_letters(connection, display_names)
    await documents.enqueue_changes(connection, documents.ERASED, [""])
    forget_data_keys(connection)
    for row in rows:
        await finish_deletion(connection, caller, row)
        await _erase_customer(connection, caller, row)
    return +counts


async def clear_events(database: Database, names: Sequence[str], before: int | None = None) -> int:
    """Clear events of customers, EVENTS_MAX at a time, so that a later erasure is short. Return their number.

    With `before` the names are from `list_due`. Any of these customers may be restored meanwhile; its events then stay.
    """
    count = 0
    while names:
        async with database.reading() as connection:
            personal_events = sa.select(events.c.id).where(_match_personal_events(names)).limit(1)
            if (await connection.execute(personal_events)).first() is None:
                break
        async with database.writing() as connection:
            if before is not None:
                due = await fetch_stored_rows(connection, lock_rows(_select_due(before)))
                names = sorted({row.name for row in due} & set(names))
            if names:
                count += (await connection.execute(build_clearing(names))).rowcount
    return count


def build_clearing(names: Sequence[str]) -> sa.Update:
    """Build the statement that clears some events of customers."""
    key = sa.tuple_(events.c.source, events.c.id)
    selected = sa.select(events.c.source, events.c.id).where(_match_personal_events(names)).limit(EVENTS_MAX)
    return sa.update(events).where(key.in_(selected)).values(dict.fromkeys(TABLES[events.name].cleared))


def _match_personal_events(names: Sequence[str]) -> sa.ColumnElement[bool]:
    return events.c.customer.in_(names) & has_cleared(events)


def has_cleared(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition that a row has data that an erasure clears.

    For events it matches the condition of their index.
    """
    return sa.or_(*(table.c[column].is_not(None) for column in TABLES[table.name].cleared))


async def list_late(connection: AsyncConnection, now: int) -> list[Sequence[ErasedCustomer]]:
    """List customers erased less than LATE_MS before this Unix millisecond, in groups of ERASE_MAX."""
    erased_at = customers_table.c.erased_at
    chosen = sa.select(customers_table.c.id, customers_table.c.name).where(erased_at >= now - LATE_MS)
    rows = [ErasedCustomer(*row) for row in await connection.execute(chosen.order_by(erased_at))]
    return [rows[at : at + ERASE_MAX] for at in range(0, len(rows), ERASE_MAX)]


async def erase_late_rows(connection: AsyncConnection, erased: Sequence[ErasedCustomer]) -> Counter[str]:
    """Erase rows of customers that arrived after the erasure. Return the number of rows by table.

    A row may be inserted after the erasure, with a data key that could decrypt it: by a running transaction, a batch of
    a cut-off edge, a webhook of Stripe, or a person at a sign-in page. Alerts stay, because they tell operators the
    debts of such a customer.
    """
    return await _erase_rows(
        connection, [customer.id for customer in erased], [customer.name for customer in erased], LATE_KEPT
    )


async def _erase_rows(
    connection: AsyncConnection, ids: Sequence[str], names: Sequence[str], excluded: frozenset[str] = frozenset()
) -> Counter[str]:
    """Delete or clear rows of customers as the map says, except in the tables `excluded`.

    Return the numbers by table.
    """
    await end_allocations(connection, holdings.c.customer.in_(names))
    counts = Counter({"dead_letters": await _delete_dead_letters(connection, frozenset(names))})
    for name, entry in TABLES.items():
        if name in excluded:
            continue
        table = metadata.tables[name]
        if entry.erasure is Erasure.DELETES:
            statement: sa.Delete | sa.Update = sa.delete(table)
        elif entry.erasure is Erasure.CLEARS and table is not customers_table:
            statement = sa.update(table).where(has_cleared(table)).values(dict.fromkeys(entry.cleared))
        else:
            continue
        counts[name] = (await connection.execute(statement.where(select_own(name, ids, names)))).rowcount
    return +counts


async def _erase_customer(connection: AsyncConnection, caller: Caller, row: CustomerRow) -> None:
    """Clear the row of a customer, and record that in the audit log."""
    state = compute_customer_state(row).value
    if row.deleting_since is None:
        row = await customers.transition(connection, row, deleting_since=now_ms())
        await documents.enqueue_changes(connection, "customer", [row.name])
    bare_settings = orjson.dumps({"tier": row.tier}).decode()
    cleared: customers.Columns = {
        "display_name": None,
        "external_id": None,
        "metadata": "{}",
        "rotate_every": None,
        "public_key": None,
        "settings": bare_settings,
    }
    await customers.transition(connection, row, **cleared, erased_at=now_ms())
    entry = AuditEntry("customer.erase", row.name, {"state": state}, {"state": "deleted"})
    await audit.append_entry(connection, caller, entry)


async def end_allocations(connection: AsyncConnection, ending: sa.ColumnElement[bool]) -> None:
    """Record the times of allocations, which are billed, before their rows are deleted with their items."""
    now, allocation = now_ms(), holdings.c
    ended_at = sa.case((allocation.expires_at < now, allocation.expires_at), else_=now)
    ended_allocations = sa.select(allocation.customer, allocation.meter, allocation.taken_at, ended_at).where(ending)
    columns = ["customer", "meter", "taken_at", "ended_at"]
    await connection.execute(sa.insert(past_holdings).from_select(columns, ended_allocations))


async def _delete_dead_letters(connection: AsyncConnection, names: frozenset[str]) -> int:
    """Delete rejected events that name one of these customers, and return their number."""
    columns = dead_letters.c
    if not names:
        return 0
    rows = await connection.execute(sa.select(columns.id, columns.event).where(match_events(names)))
    ids = [row.id for row in rows if names_one(row.event, names, if_doubtful=True)]
    if ids:
        await connection.execute(sa.delete(dead_letters).where(columns.id.in_(ids)))
    return len(ids)
