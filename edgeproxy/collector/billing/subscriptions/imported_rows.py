"""Imported subscriptions as rows. Each waits for the end of the time paid at Stripe.

    waiting ──▶ begun
       ▲ │
       │ ▼
     dropped

A dropped subscription may be imported again; one that has begun may not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.billing_tables import imported_subscriptions as table

WAITING, BEGUN, DROPPED = "waiting", "begun", "dropped"


class ImportedRow(NamedTuple):
    """An imported subscription row. Times are Unix seconds."""

    stripe_id: str
    customer: str
    plan_version: str
    is_yearly: int
    anchor: int
    begins_at: int
    created_at: int
    """Unix milliseconds."""
    state: str = WAITING
    why: str | None = None
    """The reason why it was dropped."""
    subscription: str | None = None
    """The id of our subscription that has begun."""


FIELDS = [table.c[name] for name in ImportedRow._fields]


async def fetch_rows(
    connection: AsyncConnection, *conditions: sa.ColumnElement[bool], lock: bool = False
) -> list[ImportedRow]:
    """Return the imported subscriptions that meet all conditions, by their start."""
    statement = sa.select(*FIELDS).where(*conditions).order_by(table.c.begins_at, table.c.stripe_id)
    rows = await connection.execute(statement.with_for_update() if lock else statement)
    return [ImportedRow._make(row) for row in rows]


async def list_due(connection: AsyncConnection, now: float, limit: int, without: Sequence[str]) -> list[ImportedRow]:
    """Return the waiting ones that are due to begin, except the ids in `without`."""
    due = (table.c.state == WAITING, table.c.begins_at <= now, table.c.stripe_id.not_in(without))
    statement = sa.select(*FIELDS).where(*due).order_by(table.c.begins_at, table.c.stripe_id).limit(limit)
    return [ImportedRow._make(row) for row in await connection.execute(statement)]


async def find_waiting(connection: AsyncConnection, customer: str) -> ImportedRow | None:
    """Return the subscription that waits to begin for a customer, by id, or None."""
    waiting = (table.c.customer == customer, table.c.state == WAITING)
    return next(iter(await fetch_rows(connection, *waiting)), None)


async def put_row(connection: AsyncConnection, row: ImportedRow) -> None:
    """Write a waiting row. It replaces a dropped row of its Stripe subscription."""
    dropped = (table.c.stripe_id == row.stripe_id) & (table.c.state == DROPPED)
    await connection.execute(sa.delete(table).where(dropped))
    await connection.execute(sa.insert(table), [row._asdict()])


async def update_waiting(connection: AsyncConnection, stripe_id: str, **values: object) -> bool:
    """Update columns of a waiting row. Return whether it was waiting."""
    waiting = (table.c.stripe_id == stripe_id) & (table.c.state == WAITING)
    return (await connection.execute(sa.update(table).where(waiting).values(**values))).rowcount == 1


async def link_subscription(connection: AsyncConnection, stripe_id: str, subscription: str) -> None:
    """Record our subscription that has replaced one at Stripe."""
    statement = sa.update(table).where(table.c.stripe_id == stripe_id).values(subscription=subscription)
    await connection.execute(statement)
