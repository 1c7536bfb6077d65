"""Plan versions with the terms at their sale.

Invoices are rated by these rows, so a version that a customer has is never edited.
"""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.subscriptions.price_moves import (
    PriceMove,
    get_moving_plan,
    order_version,
    select_plans_on_sale,
)
from edgeproxy.collector.database.billing_tables import (
    CANCELED,
    imported_subscriptions,
    plan_versions,
    price_moves,
    segments,
    subscriptions,
)
from edgeproxy.collector.database.unreadable_rows import parse_rows, reading_row
from edgeproxy.config.collector.catalog import Plan, find_version_owner, parse_plan, serialize_plan


class RecordedVersion(NamedTuple):
    """A recorded plan version, with the number of its subscribers."""

    version: str
    plan: Plan
    created_at: int
    """Unix milliseconds."""
    subscribers: int


class PlanEditedError(Exception):
    """A version was edited after it was sold. The message is for the person who edited it."""


async def record_plans(connection: AsyncConnection, plans: Mapping[str, Plan]) -> None:
    """Record the plans on sale. Raises PlanEditedError if a version that a customer has or had was edited.

    An unreadable version is set aside: it was damaged, not edited, and a collector must be able to start.
    """
    stored = {row.version: row.settings for row in await connection.execute(sa.select(plan_versions))}
    changed = {
        version for version, plan in plans.items() if stored.get(version, serialize_plan(plan)) != serialize_plan(plan)
    }
    readable = parse_rows(plan_versions.name, changed, lambda version: (version, parse_plan(stored[version])), str)
    changed = {version for version, _ in readable}
    # A version that nobody has ever had may still be edited, for example after a typing error.
    sold = await list_sold_versions(connection, changed)
    if sold:
        first = min(sold)
        raise PlanEditedError(
            f"{first} was edited, and customers have it as it was: write {first.partition('@')[0]}@N anew"
        )
    new = [
        {"version": version, "settings": serialize_plan(plan), "created_at": now_ms()}
        for version, plan in plans.items()
        if version not in stored
    ]
    if new:
        await connection.execute(sa.insert(plan_versions), new)
    for version in changed:
        statement = sa.update(plan_versions).where(plan_versions.c.version == version)
        await connection.execute(statement.values(settings=serialize_plan(plans[version])))


async def list_sold_versions(connection: AsyncConnection, versions: Iterable[str]) -> set[str]:
    """Return the versions among these that a customer has, had, or will move to."""
    return {version for version in versions if await _is_sold(connection, version)}


async def _is_sold(connection: AsyncConnection, version: str) -> bool:
    for table in (segments, subscriptions, imported_subscriptions):
        statement = sa.select(table.c.plan_version).where(table.c.plan_version == version).limit(1)
        if (await connection.execute(statement)).first() is not None:
            return True
    # Customers have been told of the price of a scheduled version, or will be.
    scheduled = sa.select(price_moves.c.after).where(price_moves.c.after == version, price_moves.c.withdrawn == 0)
    return (await connection.execute(scheduled)).first() is not None


async def fetch_plans(
    connection: AsyncConnection, versions: Iterable[str], currency: str | None = None
) -> dict[str, Plan]:
    """Return the sold terms of these versions, with prices in a currency; by default, in the versions' first currency.

    Raises ValueError if a version has no price in the currency, and UnreadableRowError.
    """
    rows = await connection.execute(sa.select(plan_versions).where(plan_versions.c.version.in_(set(versions))))
    plans = {row.version: _parse_row(row.version, row.settings) for row in rows}
    return plans if currency is None else {version: plan.in_currency(currency) for version, plan in plans.items()}


async def fetch_readable_plans(connection: AsyncConnection, versions: Iterable[str]) -> dict[str, Plan]:
    """Return the sold terms of these versions, without unreadable ones, for work on all customers.

    Unreadable versions are set aside, so that the customers of other versions get their result.
    """
    rows = await connection.execute(sa.select(plan_versions).where(plan_versions.c.version.in_(set(versions))))
    parsed = parse_rows(
        plan_versions.name, rows, lambda row: (row.version, parse_plan(row.settings)), attrgetter("version")
    )
    return dict(parsed)


def _parse_row(version: str, settings: str) -> Plan:
    with reading_row(plan_versions.name, version):
        return parse_plan(settings)


async def fetch_recorded(connection: AsyncConnection) -> list[RecordedVersion]:
    """Return all versions ever recorded, by plan and number."""
    # Counted before the join: joined to their versions, 100,000 subscribers took 70 ms instead of 42.
    counts = (
        sa.select(subscriptions.c.plan_version, sa.func.count().label("subscribers"))
        .where(subscriptions.c.state != CANCELED)
        .group_by(subscriptions.c.plan_version)
        .subquery()
    )
    statement = sa.select(plan_versions, sa.func.coalesce(counts.c.subscribers, 0).label("subscribers")).join_from(
        plan_versions, counts, counts.c.plan_version == plan_versions.c.version, isouter=True
    )
    recorded = parse_rows(
        plan_versions.name,
        await connection.execute(statement),
        lambda row: RecordedVersion(row.version, parse_plan(row.settings), row.created_at, row.subscribers),
        attrgetter("version"),
    )
    return sorted(recorded, key=lambda row: (get_moving_plan(row.version), order_version(row.version)))


async def fetch_moves(connection: AsyncConnection) -> list[PriceMove]:
    """Return all moves that are not withdrawn, in order of time."""
    columns = [price_moves.c[name] for name in PriceMove._fields]
    statement = sa.select(*columns).where(price_moves.c.withdrawn == 0).order_by(price_moves.c.at, price_moves.c.plan)
    return [PriceMove._make(row) for row in await connection.execute(statement)]


async def fetch_plans_on_sale(
    connection: AsyncConnection, plans: Mapping[str, Plan], now: float, customer: str | None = None
) -> dict[str, Plan]:
    """Return the versions on sale at a Unix second, with these versions in the configuration.

    Raises UnreadableRowError if a special price of the `customer`, by name, cannot be read: no other may be sold to it.
    """
    moves = await fetch_moves(connection)
    moved = await fetch_readable_plans(connection, [move.after for move in moves]) if moves else {}
    if customer is not None:
        own = [move.after for move in moves if find_version_owner(move.after) == customer and move.after not in moved]
        await fetch_plans(connection, own)
    return select_plans_on_sale(plans, moved, moves, now)
