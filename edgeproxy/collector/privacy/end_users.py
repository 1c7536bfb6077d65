"""End users of customers in stored data: hashing of earlier plain items, and the erasure of one end user.

An erasure replaces the end user's item by a random one, so that counts stay.
"""

from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.audit import AuditEntry, Caller, append_entry
from edgeproxy.collector.accounts.end_user_pseudonyms import find_pseudonym
from edgeproxy.collector.accounts.end_users import (
    ERASED,
    HASHED,
    fetch_secrets,
    get_or_create_secrets,
    hash_item,
    make_random_item,
)
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.privacy_tables import end_users
from edgeproxy.collector.database.quota_tables import holdings
from edgeproxy.collector.database.schema import dead_letters, events
from edgeproxy.collector.privacy.erasure import end_allocations, has_cleared
from edgeproxy.collector.privacy.rejected_events import has_text, match_events, names_one

ROWS_AT_ONCE = 500
"""The most rows that one transaction hashes."""
IS_READING = events.c.is_summed == sa.literal_column("0")
"""The condition of the index of readings, which includes all events with items. SQLite must see a literal number."""


async def hash_clear_items(database: Database) -> int:
    """Hash items stored in plain text, and return their number.

    After an interruption, the next call hashes the rest.
    """
    return sum([await _hash_table(database, table) for table in (events, holdings)])


async def _hash_table(database: Database, table: sa.Table) -> int:
    key = tuple(table.primary_key.columns)
    is_clear = table.c.item.is_not(None) & table.c.item.not_like(f"{HASHED}%") & table.c.item.not_like(f"{ERASED}%")
    columns = dict.fromkeys((*key, table.c.customer, table.c.item))
    statement = sa.select(*columns).where(is_clear).order_by(*key).limit(ROWS_AT_ONCE)
    count, page = 0, statement
    while True:
        async with database.reading() as connection:  # This may read many rows, but blocks no writer.
            rows = (await connection.execute(page)).all()
        if not rows:
            return count
        async with database.writing() as connection:
            secrets = await get_or_create_secrets(connection, {row.customer for row in rows})
            for row in rows:
                same = sa.and_(*(column == row._mapping[column] for column in key)) & (table.c.item == row.item)
                item = hash_item(secrets[row.customer], row.item)
                await connection.execute(sa.update(table).where(same).values(item=item))
        count += len(rows)
        last = sa.tuple_(*(sa.literal(rows[-1]._mapping[column], column.type) for column in key))
        page = statement.where(sa.tuple_(*key) > last)


async def erase_end_user(connection: AsyncConnection, caller: Caller, customer: str, name: str) -> Counter[str]:
    """Erase an end user of a customer, given by its ledger name. Return the number of affected rows by table.

    In events a random item replaces the end user's item, and request ids are cleared. The pseudonym in dimensions
    stays, but can no longer be resolved. Holdings end, and rejected events that contain the name are deleted.
    """
    pseudonym = await find_pseudonym(connection, (customer, name))
    secret = (await fetch_secrets(connection, {customer})).get(customer)
    items = [name] if secret is None else [name, hash_item(secret, name)]
    counted = (events.c.customer == customer) & events.c.item.in_(items) & IS_READING
    without_ids = {"request_id": None, "upstream_request_id": None}
    left = {"item": make_random_item(), **without_ids}
    counts = Counter({"events": (await connection.execute(sa.update(events).where(counted).values(left))).rowcount})
    if pseudonym is not None:
        named = (events.c.customer == customer) & has_cleared(events) & events.c.dimensions.contains(pseudonym)
        counts["events"] += (await connection.execute(sa.update(events).where(named).values(without_ids))).rowcount
        row = sa.delete(end_users).where(end_users.c.pseudonym == pseudonym, end_users.c.customer == customer)
        counts["end_users"] = (await connection.execute(row)).rowcount
    held = (holdings.c.customer == customer) & holdings.c.item.in_(items)
    await end_allocations(connection, held)
    counts["holdings"] = (await connection.execute(sa.delete(holdings).where(held))).rowcount
    counts["dead_letters"] = await _delete_dead_letters(connection, customer, items)
    counts = +counts
    await append_entry(connection, caller, AuditEntry("end_user.erase", customer, None, dict(counts)))
    return counts


async def _delete_dead_letters(connection: AsyncConnection, customer: str, items: Sequence[str]) -> int:
    """Delete a customer's rejected events that contain one of an end user's names, encoded or not; return their number.

    Events rejected after end users were hashed contain the hash.
    """
    columns = dead_letters.c
    rows = await connection.execute(sa.select(columns.id, columns.event).where(match_events([customer])))
    ids = [row.id for row in rows if has_text(row.event, items) and names_one(row.event, [customer], if_doubtful=True)]
    if ids:
        await connection.execute(sa.delete(dead_letters).where(columns.id.in_(ids)))
    return len(ids)
