"""Pseudonyms of end users, which replace their names in the dimensions of usage.

A pseudonym is random. One row maps it to the hash of the name (`end_users.py`). Usage is never rewritten; once that row
is deleted, it identifies no one.
"""

import re
from collections.abc import Mapping
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.end_users import Secrets, fetch_secrets, get_or_create_secrets, hash_item
from edgeproxy.collector.accounts.ids import ID_PATTERN
from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.privacy_tables import end_users

PATTERN = re.compile(rf"u-{ID_PATTERN.pattern}")
HASHES_MAX = 1000
"""The most hashes that one statement looks up."""

Person = tuple[str, str]
"""A customer by its ledger name, and the name of one of its end users."""


def is_pseudonym(text: str) -> bool:
    """Return whether a text has the form of an end user's pseudonym."""
    return PATTERN.fullmatch(text) is not None


async def find_pseudonym(connection: AsyncConnection, person: Person) -> str | None:
    """Return the pseudonym of an end user, or None. Raises KeysUnavailableError and SealedValueError."""
    return (await _fetch(connection, await fetch_secrets(connection, {person[0]}), {person})).get(person)


async def get_or_create_pseudonyms(database: Database, people: set[Person]) -> Mapping[Person, str]:
    """Return the pseudonyms of end users, and create missing ones.

    Raises KeysUnavailableError and SealedValueError.
    """
    customers = {customer for customer, _ in people}
    async with database.reading() as connection:
        known = await _fetch(connection, await fetch_secrets(connection, customers), people)
    if new := people - known.keys():
        async with database.writing() as connection:
            secrets = await get_or_create_secrets(connection, customers)
            rows = [
                {"hash": hash_item(secrets[customer], name), "customer": customer, "pseudonym": f"u-{uuid4()}"}
                for customer, name in sorted(new)
            ]
            await connection.execute(build_insert_new(connection, end_users, "hash"), rows)
            known |= await _fetch(connection, secrets, new)  # Another collector may have created one meanwhile.
    return known


async def _fetch(connection: AsyncConnection, secrets: Secrets, people: set[Person]) -> dict[Person, str]:
    """Return the existing pseudonyms of these people."""
    by_hash = {hash_item(secrets[person[0]], person[1]): person for person in people if person[0] in secrets}
    hashes, known = sorted(by_hash), dict[Person, str]()
    for at in range(0, len(hashes), HASHES_MAX):
        some = end_users.c.hash.in_(hashes[at : at + HASHES_MAX])
        rows = await connection.execute(sa.select(end_users.c.hash, end_users.c.pseudonym).where(some))
        known |= {by_hash[row.hash]: row.pseudonym for row in rows}
    return known
