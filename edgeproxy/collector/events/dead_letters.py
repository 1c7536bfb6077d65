"""Rejected events with their errors, stored until a person replays or discards them."""

from operator import attrgetter
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.database.schema import dead_letters
from edgeproxy.collector.database.unreadable_rows import ReadPage, parse_page, reading_row

PAGE_LETTERS_MAX = 1000
"""The most dead letters of a page."""


class DeadLetter(NamedTuple):
    """A dead letter. `received` is in Unix milliseconds."""

    id: str
    received: int
    token: str
    error: str
    event: Any


async def list_letters(connection: AsyncConnection, after: str, limit: int) -> ReadPage[DeadLetter]:
    """List the letters after one, oldest first."""
    statement = sa.select(dead_letters).where(dead_letters.c.id > after).order_by(dead_letters.c.id).limit(limit + 1)
    rows = (await connection.execute(statement)).all()
    return parse_page(dead_letters.name, rows, limit, _parse_letter, attrgetter("id"))


async def find_letter(connection: AsyncConnection, id_: str) -> DeadLetter | None:
    """Return a letter, or None if it does not exist. Raises UnreadableRowError."""
    row = (await connection.execute(sa.select(dead_letters).where(dead_letters.c.id == id_))).one_or_none()
    return None if row is None else _parse_letter(row)


async def delete_letter(connection: AsyncConnection, id_: str) -> bool:
    """Delete a letter. Return whether it existed."""
    gone = await connection.execute(sa.delete(dead_letters).where(dead_letters.c.id == id_))
    return gone.rowcount > 0


def find_customer(event: object) -> str | None:
    """Return the customer that a rejected event names, in our form or as the subject of a CloudEvent."""
    name = event.get("customer", event.get("subject")) if isinstance(event, dict) else None
    return name if isinstance(name, str) else None


def identify(event: object) -> JsonObject:
    """Return the fields that identify an event, and none of its content, because the audit log stores them for good."""
    if not isinstance(event, dict):
        return {}
    named = {"source": event.get("source"), "id": event.get("id"), "meter": event.get("meter", event.get("type"))}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _parse_letter(row: sa.Row[Any]) -> DeadLetter:
    with reading_row(dead_letters.name, row.id):
        return DeadLetter(row.id, row.received, row.token, row.error, orjson.loads(row.event))
