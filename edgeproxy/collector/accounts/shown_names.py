"""Names of customers as people wrote them, for mails, sign-in and invoices. They are any text: `Zephyr GmbH & Co`.

The form of a new customer stores it in the metadata. Other customers are shown by their name in the API.
"""

from collections import Counter
from collections.abc import Sequence

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customer_rows
from edgeproxy.collector.accounts.pseudonyms import fetch_display_names
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.languages.invisible import format_line

NAME_FIELD = "name"
"""The metadata field with a customer's name as a person wrote it."""
NAME_CHARACTERS_MAX = 200
"""Longer names are cut, in mails and at Stripe. Stripe's API description states no limit."""
READ_CHARACTERS = 80
"""People tell names apart by these characters. The page with a choice shows no more."""


def format_shown_name(row: CustomerRow) -> str:
    """Return the name of a customer, on one line of at most NAME_CHARACTERS_MAX printable characters."""
    words = format_line(str(orjson.loads(row.metadata).get(NAME_FIELD, ""))).split()
    return " ".join(words)[:NAME_CHARACTERS_MAX] or row.display_name or row.name


async def fetch_names(connection: AsyncConnection, name: str) -> tuple[str, str]:
    """Return the name in the API and the shown name of a customer, by its name in the ledger."""
    rows = await customer_rows.fetch_rows(connection, sa.select(customers).where(customers.c.name == name))
    if rows:
        return rows[0].display_name or name, format_shown_name(rows[0])
    readable = (await fetch_display_names(connection, [name])).get(name, name)  # Its row cannot be decrypted.
    return readable, readable


async def find_shown_name(database: Database, name: str) -> str:
    """Return the shown name of a customer by its name in the ledger."""
    async with database.reading() as connection:
        return (await fetch_names(connection, name))[1]


async def find_distinct_names(database: Database, names: Sequence[str]) -> list[str]:
    """Return the shown names of customers by their names in the ledger, for a choice.

    Two customers may have equal names. These begin with the name in the API, which only one has.
    """
    async with database.reading() as connection:
        known = [await fetch_names(connection, name) for name in names]
    counts = Counter(shown[:READ_CHARACTERS] for _, shown in known)
    return [shown if counts[shown[:READ_CHARACTERS]] == 1 else f"{name} ({shown})" for name, shown in known]
