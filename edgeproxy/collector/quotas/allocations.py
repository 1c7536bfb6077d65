"""Holdings: things that exist and take a place each, such as workflows and seats.

A place is taken, and counted, in one transaction, before which the customer's places of this meter are locked: whoever
takes one sees all that were taken before, through whichever collector. A place with an end is free from then on,
whoever looks, and its row goes with the next that is taken. From when to when it was held stays, as that may be billed
(collector/ledger/allocation_levels.py).
"""

import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import holdings, past_holdings

ITEM = re.compile(r"[!-.0-~]{1,200}")
"""The id of what exists: visible characters of ASCII, but for /."""


class Allocation(NamedTuple):
    """A place that is taken. Times are Unix milliseconds."""

    item: str
    taken_at: int
    expires_at: int | None
    """When it is given back by itself; None: never."""


class AllocationResult(NamedTuple):
    """What came of taking a place."""

    holding: Allocation | None
    """None where there was none left."""
    is_new: bool
    used: int
    """How many are taken by now."""
    expired: int
    """How many places were found whose time was over."""


async def allocate(
    database: Database,
    connection: AsyncConnection,
    customer: str,
    meter: str,
    item: str,
    *,
    allowed: int | None,
    seconds: int | None,
    token: str,
) -> AllocationResult:
    """Take the place of an item, or keep it: it ends in `seconds` (None: never), also where it was taken before.

    `allowed`: how many places there are, None: any number. `token`: of who takes it.
    """
    await database.hold(connection, f"holdings {customer} {meter}")
    now = now_ms()
    expires_at = None if seconds is None else now + seconds * 1000
    own = _is_of(customer, meter)
    expired = await _end_allocations(connection, customer, meter, holdings.c.expires_at <= now, now)
    this = own & (holdings.c.item == item)
    taken_at = (await connection.execute(sa.select(holdings.c.taken_at).where(this))).scalar_one_or_none()
    count = (await connection.execute(sa.select(sa.func.count()).select_from(holdings).where(own))).scalar_one()
    if taken_at is not None:
        await connection.execute(sa.update(holdings).where(this).values(expires_at=expires_at))
        return AllocationResult(Allocation(item, taken_at, expires_at), False, count, expired)
    if allowed is not None and count >= allowed:
        return AllocationResult(None, False, count, expired)
    row = {"customer": customer, "meter": meter, "item": item, "taken_at": now}
    await connection.execute(sa.insert(holdings), [{**row, "expires_at": expires_at, "token": token}])
    return AllocationResult(Allocation(item, now, expires_at), True, count + 1, expired)


async def release(connection: AsyncConnection, customer: str, meter: str, item: str) -> bool:
    """Free the place of an item; whether it had one."""
    return await _end_allocations(connection, customer, meter, holdings.c.item == item, now_ms()) > 0


async def used(connection: AsyncConnection, customer: str, meter: str) -> int:
    """Count the places that are taken."""
    there = sa.select(sa.func.count()).select_from(holdings).where(_is_of(customer, meter), _is_held())
    count: int = (await connection.execute(there)).scalar_one()
    return count


async def list_allocations(
    connection: AsyncConnection, customer: str, meter: str, after: str | None, limit: int
) -> list[Allocation]:
    """Return the places that are taken, in the order of their items; at most `limit`, behind the item `after`."""
    of = holdings.c
    statement = sa.select(of.item, of.taken_at, of.expires_at).where(_is_of(customer, meter), _is_held())
    if after is not None:
        statement = statement.where(of.item > after)
    return [Allocation(*row) for row in await connection.execute(statement.order_by(of.item).limit(limit))]


async def _end_allocations(
    connection: AsyncConnection, customer: str, meter: str, which: sa.ColumnElement[bool], now: int
) -> int:
    """Free some places of a customer, and keep from when to when they were held. Return how many there were."""
    gone = sa.delete(holdings).where(_is_of(customer, meter), which)
    ended = await connection.execute(gone.returning(holdings.c.taken_at, holdings.c.expires_at))
    rows = [
        {
            "customer": customer,
            "meter": meter,
            "taken_at": taken_at,
            "ended_at": now if expires_at is None else min(expires_at, now),
        }
        for taken_at, expires_at in ended
    ]
    if rows:
        await connection.execute(sa.insert(past_holdings), rows)
    return len(rows)


def _is_of(customer: str, meter: str) -> sa.ColumnElement[bool]:
    return (holdings.c.customer == customer) & (holdings.c.meter == meter)


def _is_held() -> sa.ColumnElement[bool]:
    now = now_ms()
    return holdings.c.expires_at.is_(None) | (holdings.c.expires_at > now)
