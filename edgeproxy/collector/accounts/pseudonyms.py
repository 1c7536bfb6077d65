"""Pseudonyms of customers (docs/privacy/privacy.md#pseudonyms): names are exchanged for pseudonyms on input, and back
on output.

Inside the collector, a customer with a pseudonym is known only by it. The pseudonym of a customer is `c-` and its id. A
pseudonym in the path or a parameter of a URL is not replaced, so that no name gets into a browser's history or a
proxy's log.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import ID_PATTERN, PSEUDONYM_PREFIX, is_pseudonym
from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.parsers import NAME

SHOWN = re.compile(rf"(?<![0-9A-Za-z_/=-]){PSEUDONYM_PREFIX}{ID_PATTERN.pattern}(?![0-9A-Za-z_-])".encode())
"""A pseudonym in a text for people, but not in a URL."""
LOOKED_UP_MAX = 1000
"""The most names that one statement looks up."""


class PseudonymsOffError(UnusableDatabaseError):
    """Pseudonyms were switched off. The message is for the person who started the collector."""


class Readers(NamedTuple):
    """The names that the reader of an answer may see."""

    is_staff: bool = False
    """Show all names, as to operators and services."""
    pseudonyms: frozenset[str] = frozenset()
    """The pseudonyms whose names are shown to other readers."""


NOBODY = Readers()


async def fetch_display_names(connection: AsyncConnection, pseudonyms: Collection[str]) -> dict[str, str]:
    """Return the names of the customers with these pseudonyms, by pseudonym, without customers that have none or are
    erased."""
    ordered = sorted(pseudonyms)
    names: dict[str, str] = {}
    for at in range(0, len(ordered), LOOKED_UP_MAX):
        some = customers.c.name.in_(ordered[at : at + LOOKED_UP_MAX]) & customers.c.display_name.is_not(None)
        rows = await connection.execute(sa.select(customers.c.name, customers.c.display_name).where(some))
        names |= {row.name: row.display_name for row in rows}
    return names


async def resolve_names(connection: AsyncConnection, names: Iterable[str]) -> dict[str, str]:
    """Return the pseudonyms of the customers with these display names, by name; unknown names are left out."""
    ordered = sorted(set(names))
    pseudonyms: dict[str, str] = {}
    for at in range(0, len(ordered), LOOKED_UP_MAX):
        some = customers.c.display_name.in_(ordered[at : at + LOOKED_UP_MAX])
        rows = await connection.execute(sa.select(customers.c.display_name, customers.c.name).where(some))
        pseudonyms |= {row.display_name: row.name for row in rows}
    return pseudonyms


async def resolve_name(connection: AsyncConnection, name: str) -> str:
    """Return the pseudonym of the customer with this display name, or else the name.

    In a key's `NAME/ID`, only the name is replaced.
    """
    customer, slash, rest = name.partition("/")
    if is_pseudonym(customer) or not NAME.fullmatch(customer):
        return name
    return (await resolve_names(connection, [customer])).get(customer, customer) + slash + rest


def find_pseudonyms(content: bytes, readers: Readers) -> set[str]:
    """Return the pseudonyms in a text whose names these readers may see."""
    pseudonyms = {match.decode() for match in SHOWN.findall(content)}
    return pseudonyms if readers.is_staff else pseudonyms & readers.pseudonyms


def show_names(content: bytes, names: Mapping[str, str]) -> bytes:
    """Return a text with pseudonyms replaced by `names`, given by pseudonym. Names never need escaping."""
    return SHOWN.sub(lambda match: names.get(match[0].decode(), match[0].decode()).encode(), content)


async def reveal_names(connection: AsyncConnection, content: bytes, readers: Readers) -> bytes:
    """Return a text with pseudonyms replaced by the names that these readers may see."""
    pseudonyms = find_pseudonyms(content, readers)
    return show_names(content, await fetch_display_names(connection, pseudonyms)) if pseudonyms else content


async def find_display_name(database: Database, name: str) -> str:
    """Return the display name of a customer by its name in the ledger."""
    async with database.reading() as connection:
        return (await fetch_display_names(connection, [name])).get(name, name)


async def require_pseudonyms(database: Database, *, are_on: bool) -> None:
    """Raise PseudonymsOffError if customers have pseudonyms but the settings disable them."""
    if are_on:
        return
    there = sa.select(customers.c.id).where(customers.c.display_name.is_not(None)).limit(1)
    async with database.reading() as connection:
        if (await connection.execute(there)).first() is not None:
            why = "customers have pseudonyms, and go on having them: write privacy: {pseudonyms: true}"
            raise PseudonymsOffError(why)
