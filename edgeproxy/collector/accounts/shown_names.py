"""Names of customers as people wrote them, for pages, mails and invoices. They are any text: `Zephyr GmbH & Co`.

Sign-up and the form of a new customer store it in the metadata. Other customers are shown by their name in the API.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customer_rows
from edgeproxy.collector.accounts.pseudonyms import LOOKED_UP_MAX, fetch_display_names
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.languages.invisible import JOINERS, format_line

NAME_FIELD = "name"
"""The metadata field with a customer's name as a person wrote it."""
NAME_FIELDS = (NAME_FIELD, "organisation")
"""The fields that are looked at. Sign-ups of earlier versions stored the name in the second one."""
NAME_CHARACTERS_MAX = 200
"""Longer names are cut, in mails and at Stripe. Stripe's API description states no limit."""
READ_CHARACTERS = 80
"""People tell names apart by these characters. The page with a choice shows no more."""


class NamePair(NamedTuple):
    """The names of a customer."""

    in_api: str
    shown: str


def format_shown_name(metadata: Mapping[str, object], name: str) -> str:
    """Return the name of a customer, on one line of at most NAME_CHARACTERS_MAX printable characters.

    `name` is its name in the API.
    """
    texts = (" ".join(format_line(str(metadata.get(field, ""))).split()) for field in NAME_FIELDS)
    return next(filter(None, texts), name)[:NAME_CHARACTERS_MAX]


def _parse_metadata(text: str) -> Mapping[str, object]:
    """Return the metadata of a row, or none if it is damaged: the name alone must hinder no page and no mail."""
    try:
        metadata = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


async def fetch_all_names(connection: AsyncConnection, names: Collection[str]) -> dict[str, NamePair]:
    """Return the names of customers by their names in the ledger. An unknown name stands for itself."""
    ordered, known = sorted(set(names)), {}
    for at in range(0, len(ordered), LOOKED_UP_MAX):
        some = sa.select(customers).where(customers.c.name.in_(ordered[at : at + LOOKED_UP_MAX]))
        for row in await customer_rows.fetch_rows(connection, some):
            in_api = row.display_name or row.name
            known[row.name] = NamePair(in_api, format_shown_name(_parse_metadata(row.metadata), in_api))
    if unread := [name for name in ordered if name not in known]:  # Unknown, or the row cannot be decrypted.
        readable = await fetch_display_names(connection, unread)
        known |= {name: NamePair(*[readable.get(name, name)] * 2) for name in unread}
    return known


async def fetch_names(connection: AsyncConnection, name: str) -> NamePair:
    """Return the names of a customer by its name in the ledger."""
    return (await fetch_all_names(connection, [name]))[name]


async def find_shown_name(database: Database, name: str) -> str:
    """Return the shown name of a customer by its name in the ledger."""
    async with database.reading() as connection:
        return (await fetch_names(connection, name)).shown


async def find_distinct_names(database: Database, names: Sequence[str]) -> list[str]:
    """Return the shown names of customers by their names in the ledger, for a choice.

    Two customers may have names that read alike. These begin with the name in the API, which only one has.
    """
    async with database.reading() as connection:
        known = await fetch_all_names(connection, names)
    read = [_normalize(known[name].shown)[:READ_CHARACTERS] for name in names]
    counts = Counter(read)
    return [
        shown if counts[text] == 1 else f"{in_api} ({shown})"
        for text, (in_api, shown) in zip(read, (known[name] for name in names), strict=True)
    ]


def _normalize(name: str) -> str:
    """Return a name without differences that are hard to see: composed letters, wide ones, and joiners."""
    return unicodedata.normalize("NFKC", JOINERS.sub("", name))
