"""Allocations of countable things, such as workflows and seats; the API calls them holdings.

One transaction counts and creates an allocation, under a lock of the customer and the meter, so each transaction sees
all earlier ones, through any collector. An allocation with an end becomes void then, and the next allocation deletes
its row. Its times stay, as they may be billed (collector/ledger/allocation_levels.py).
"""

import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.end_users import get_or_create_secrets, hash_item
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import holdings, past_holdings

ITEM = re.compile(r"[!-.0-~]{1,200}")
"""The id of an item: visible ASCII characters except /."""


class AllocationRow(NamedTuple):
    """An allocation. Times are Unix milliseconds."""

    item: str
    taken_at: int
    expires_at: int | None
    """The time of its automatic release; None means never."""


class AllocationOutcome(NamedTuple):
    """The result of an attempt to allocate."""

    holding: AllocationRow | None
    """The allocation, or None if the quota was used up."""
    is_new: bool
    used: int
    """The number of the customer's allocations of the meter."""
    expired: int
    """The number of allocations released because they had expired."""


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
) -> AllocationOutcome:
    """Allocate an item, or renew its allocation, which ends in `seconds`; None means never.

    `allowed` is the most allocations, or None without a limit. `token` is the name of the caller's token.
    """
    await database.hold(connection, f"holdings {customer} {meter}")
    now = now_ms()
    expires_at = None if seconds is None else now + seconds * 1000
    own = _is_of(customer, meter)
    expired = await _end_allocations(connection, customer, meter, holdings.c.expires_at <= now, now)
    this = own & (holdings.c.item == item)
    taken_at = await connection.scalar(sa.select(holdings.c.taken_at).where(this))
    count = (await connection.execute(sa.select(sa.func.count()).select_from(holdings).where(own))).scalar_one()
    if taken_at is not None:
        await connection.execute(sa.update(holdings).where(this).values(expires_at=expires_at))
        return AllocationOutcome(AllocationRow(item, taken_at, expires_at), False, count, expired)
    if allowed is not None and count >= allowed:
        return AllocationOutcome(None, False, count, expired)
    row = {"customer": customer, "meter": meter, "item": item, "taken_at": now}
    await connection.execute(sa.insert(holdings), [{**row, "expires_at": expires_at, "token": token}])
    return AllocationOutcome(AllocationRow(item, now, expires_at), True, count + 1, expired)


async def release_allocation(connection: AsyncConnection, customer: str, meter: str, item: str) -> bool:
    """Release the allocation of an item. Return whether it had one."""
    return await _end_allocations(connection, customer, meter, holdings.c.item == item, now_ms()) > 0


async def count_allocations(connection: AsyncConnection, customer: str, meter: str) -> int:
    """Return the number of a customer's allocations of a meter."""
    there = sa.select(sa.func.count()).select_from(holdings).where(_is_of(customer, meter), _is_held())
    count: int = (await connection.execute(there)).scalar_one()
    return count


async def hash_holding(connection: AsyncConnection, customer: str, meter: str, item: str) -> str:
    """Return an item in its hashed form. A stored plain item is hashed first."""
    hashed = hash_item((await get_or_create_secrets(connection, [customer]))[customer], item)
    clear = _is_of(customer, meter) & (holdings.c.item == item)
    await connection.execute(sa.update(holdings).where(clear).values(item=hashed))
    return hashed


async def list_allocations(
    connection: AsyncConnection, customer: str, meter: str, after: str | None, limit: int
) -> list[AllocationRow]:
    """Return at most `limit` allocations after the item `after`, in the order of items."""
    of = holdings.c
    statement = sa.select(of.item, of.taken_at, of.expires_at).where(_is_of(customer, meter), _is_held())
    if after is not None:
        statement = statement.where(of.item > after)
    return [AllocationRow(*row) for row in await connection.execute(statement.order_by(of.item).limit(limit))]


async def _end_allocations(
    connection: AsyncConnection, customer: str, meter: str, which: sa.ColumnElement[bool], now: int
) -> int:
    """Release allocations of a customer, and record their times. Return their number."""
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
