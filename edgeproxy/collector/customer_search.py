"""The search for customers by id, a contact's address, a part of a name or external id, or the start of a key."""

import re
from functools import partial
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.customer_rows import DISPLAY_NAME, fetch_rows
from edgeproxy.collector.accounts.customers import to_listed
from edgeproxy.collector.accounts.models import CustomerMatch, ListedCustomer
from edgeproxy.collector.accounts.shown_names import format_shown_name
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.collector.database.search_text import PART_CHARACTERS_MIN, fold, list_part_searches
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.encryption.rows import match_domain, match_value
from edgeproxy.config.key_form import get_key_start

DOMAIN = re.compile(r"@?((?:[a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63})")
"""A domain of addresses, with or without a leading @. A name can look like one, too."""
KEY_MARK = "_v1_"
"""A marker in the keys generated here. Names rarely contain it."""


async def search_customers(
    connection: AsyncConnection, database: Database, text: str, limit: int, *, shows_money: bool = False
) -> list[ListedCustomer]:
    """Return at most `limit` customers that match a text.

    The text may be an id, a contact's address or its domain, a key or an external id. It may also be the beginning of
    an unencrypted address or domain, or a part of a name or of an unencrypted external id, in upper or lower case. The
    names are the one in the API, and the one that a person wrote, unless it is encrypted. Names in the API that begin
    with the text come before other parts. A key is searched for by its stored first characters. Parts are searched for
    only if there are fewer than `limit` other matches.
    """
    matches: dict[str, ListedCustomer] = {}
    parse = partial(to_listed, shows_money=shows_money)
    by_name = database.by_character(DISPLAY_NAME)
    for matched, condition in _list_conditions(connection, database, text, limit):
        if len(matches) >= limit:
            break
        # The index gives the order. Otherwise all matches, maybe a million, would be read and sorted.
        statement = sa.select(customers).where(condition).order_by(by_name).limit(limit)
        rows = await fetch_rows(connection, statement)
        for one in parse_rows(customers.name, rows, parse, attrgetter("id")):
            matches.setdefault(one["id"], {**one, "matched": matched})
    if len(text) >= PART_CHARACTERS_MIN and len(matches) < limit:
        ids = await _find_part(connection, database, text, limit)
        rows = await fetch_rows(connection, sa.select(customers).where(customers.c.id.in_(ids)).order_by(by_name))
        for row in rows:
            for one in parse_rows(customers.name, [row], parse, attrgetter("id")):
                names = f"{row.display_name or row.name}\n{format_shown_name(one['metadata'], '')}"
                part: CustomerMatch = "name" if fold(text) in fold(names) else "external_id"
                matches.setdefault(row.id, {**one, "matched": part})
    return list(matches.values())[:limit]


def _list_conditions(
    connection: AsyncConnection, database: Database, text: str, limit: int
) -> list[tuple[CustomerMatch, sa.ColumnElement[bool]]]:
    """List the conditions that match customers to a text, most specific first, each with the matched field."""
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
    conditions.append(("name", database.beginning(DISPLAY_NAME, text)))
    if len(text) >= PART_CHARACTERS_MIN:
        external_id = database.by_character(customers.c.external_id)
        is_clear = customers.c.external_id_sealed.is_(None)
        begins = sa.select(customers.c.id).where(database.beginning(customers.c.external_id, text), is_clear)
        conditions.append(("external_id", customers.c.id.in_(begins.order_by(external_id).limit(limit))))
        # After an @ there is a domain alone: not the beginning of an address.
        columns = (contacts.c.domain,) if text.startswith("@") else (contacts.c.email, contacts.c.domain)
        for column in columns:
            is_part = database.beginning(column, text.lower().removeprefix("@")), contacts.c.email_sealed.is_(None)
            owners = sa.select(contacts.c.customer).where(*is_part).order_by(database.by_character(column)).limit(limit)
            conditions.append(("email" if column is contacts.c.email else "domain", customers.c.id.in_(owners)))
    return conditions


async def _find_part(connection: AsyncConnection, database: Database, text: str, limit: int) -> list[str]:
    """Return the ids of at most `limit` customers whose name or external id contains this part."""
    ids: list[str] = []
    for statement in list_part_searches(text, limit, is_sqlite=database.is_sqlite):
        ids = list(await connection.scalars(statement))
        if len(ids) >= limit:
            break
    return ids
