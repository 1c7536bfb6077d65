"""The search for customers: an id, a contact's address, a part of a name or external id, how a key begins."""

import re
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.customer_rows import SHOWN_NAME, fetch_rows
from edgeproxy.collector.accounts.customers import to_response
from edgeproxy.collector.accounts.models import CustomerMatch, ListedCustomer
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.collector.database.search_text import PART_CHARACTERS_MIN, fold, list_part_searches
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.encryption.rows import match_domain, match_value
from edgeproxy.config.key_form import get_key_start

DOMAIN = re.compile(r"@?((?:[a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63})")
"""A domain of addresses, with or without the sign before it; a name can look like one, too."""
KEY_MARK = "_v1_"
"""A mark of the keys that are generated here; names rarely have it."""


async def search_customers(
    connection: AsyncConnection, database: Database, text: str, limit: int
) -> list[ListedCustomer]:
    """Return at most `limit` customers that a text may mean: an id, the address of a contact or its domain, a key, an
    external id, or a part of a name or of an external id (where it is not encrypted) in whichever case. Names that
    begin with the text come before other parts.

    A key is searched for by its first characters, which are stored. Parts are looked for only where fewer than `limit`
    match otherwise.
    """
    matches: dict[str, ListedCustomer] = {}
    by_name = database.by_character(SHOWN_NAME)
    for matched, condition in _list_conditions(connection, database, text, limit):
        if len(matches) >= limit:
            break
        # In the order of the index: else all matches, maybe a million, would be read and sorted.
        statement = sa.select(customers).where(condition).order_by(by_name).limit(limit)
        rows = await fetch_rows(connection, statement)
        for one in parse_rows(customers.name, rows, to_response, attrgetter("id")):
            matches.setdefault(one["id"], {**one, "matched": matched})
    if len(text) >= PART_CHARACTERS_MIN and len(matches) < limit:
        ids = await _find_part(connection, database, text, limit)
        rows = await fetch_rows(connection, sa.select(customers).where(customers.c.id.in_(ids)).order_by(by_name))
        for row in rows:
            part: CustomerMatch = "name" if fold(text) in fold(row.display_name or row.name) else "external_id"
            for one in parse_rows(customers.name, [row], to_response, attrgetter("id")):
                matches.setdefault(row.id, {**one, "matched": part})
    return list(matches.values())[:limit]


def _list_conditions(
    connection: AsyncConnection, database: Database, text: str, limit: int
) -> list[tuple[CustomerMatch, sa.ColumnElement[bool]]]:
    """List the conditions by which customers are found that a text may mean, those first that mean it most; each with
    what of a customer it matches."""
    conditions: list[tuple[CustomerMatch, sa.ColumnElement[bool]]] = [
        ("id", customers.c.id == text),
        ("external_id", match_value(connection, "customers", "external_id", text)),
    ]
    if KEY_MARK in text:
        is_start = database.beginning(keys.c.start, get_key_start(text))
        owners = sa.select(keys.c.customer).where(is_start).order_by(database.by_character(keys.c.start)).limit(limit)
        conditions.append(("key", customers.c.id.in_(owners)))
    if "@" in text:
        has_address = match_value(connection, contacts.name, "email", text.lower())
        conditions.append(("email", customers.c.id.in_(sa.select(contacts.c.customer).where(has_address))))
    if domain := DOMAIN.fullmatch(text.lower()):
        has_domain = match_domain(connection, contacts.name, "domain", domain[1])
        people = sa.select(contacts.c.customer).where(has_domain).limit(limit)
        conditions.append(("domain", customers.c.id.in_(people)))
    conditions.append(("name", database.beginning(SHOWN_NAME, text)))
    if len(text) >= PART_CHARACTERS_MIN:
        external_id = database.by_character(customers.c.external_id)
        is_clear = customers.c.external_id_sealed.is_(None)
        begins = sa.select(customers.c.id).where(database.beginning(customers.c.external_id, text), is_clear)
        conditions.append(("external_id", customers.c.id.in_(begins.order_by(external_id).limit(limit))))
    return conditions


async def _find_part(connection: AsyncConnection, database: Database, text: str, limit: int) -> list[str]:
    """Return the ids of at most `limit` customers in whose name or external id this part is."""
    ids: list[str] = []
    for statement in list_part_searches(text, limit, is_sqlite=database.is_sqlite):
        ids = list((await connection.execute(statement)).scalars())
        if len(ids) >= limit:
            break
    return ids
