"""Use of limits at each edge for watched customers: the list of watched customers, and edges' reports about them.

A customer is watched for a minute after a request for its limits. Edges report at most WATCHED_MAX customers: first the
ones on operators' pages, then the most recent ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, build_insert
from edgeproxy.collector.database.traffic_tables import limit_usage, limit_watches
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.wire.limit_usage import REPORT_SECONDS, WATCHED_MAX, LimitUsage

WATCH_SECONDS = 60
"""Seconds of watching after a request for a customer's limits."""
RENEW_SECONDS = 30
"""A watch is extended only if fewer seconds remain, so that not every page view writes."""
CURRENT_SECONDS = 4 * REPORT_SECONDS
"""Maximum age of a current report."""


class EdgeUsage(NamedTuple):
    """A customer's use of its limits at an edge, at a Unix second."""

    edge: str
    region: str
    at: int
    limits: Sequence[LimitUsage]


async def is_watched(connection: AsyncConnection, customer: str, now: int, is_operator: bool) -> bool:
    """Return True if a customer is watched for some time, by an operator if `is_operator`."""
    column = limit_watches.c.operator_until if is_operator else limit_watches.c.until
    until = await connection.scalar(sa.select(column).where(limit_watches.c.customer == customer))
    return until is not None and until >= now + RENEW_SECONDS


async def watch(connection: AsyncConnection, customer: str, now: int, is_operator: bool) -> None:
    """Make edges report a customer for WATCH_SECONDS."""
    insert = build_insert(connection, limit_watches)
    until = now + WATCH_SECONDS
    changes = {"until": until} | ({"operator_until": until} if is_operator else {})
    values = {"customer": customer, "operator_until": 0, **changes}
    await connection.execute(insert.values(values).on_conflict_do_update(index_elements=["customer"], set_=changes))


async def fetch_and_watch(database: Database, customer: str, now: int, is_operator: bool) -> list[EdgeUsage]:
    """Return a customer's use of limits as `fetch_usage`, and make edges report it for another minute."""
    async with database.reading() as connection:
        is_renewed = not await is_watched(connection, customer, now, is_operator)
        usage = await fetch_usage(connection, customer, now)
    if is_renewed:
        async with database.writing() as connection:
            await watch(connection, customer, now, is_operator)
    return usage


async def fetch_watched(connection: AsyncConnection, now: int) -> list[str]:
    """Return the customers that edges must report."""
    columns = limit_watches.c
    by_operator = sa.case((columns.operator_until > now, 0), else_=1)
    statement = sa.select(columns.customer).where(columns.until > now)
    ordered = statement.order_by(by_operator, columns.until.desc(), columns.customer).limit(WATCHED_MAX)
    return list(await connection.scalars(ordered))


async def select_watched(connection: AsyncConnection, customers: Iterable[str]) -> list[str]:
    """Return the customers that are watched, or were until a moment ago."""
    name = limit_watches.c.customer
    return list(await connection.scalars(sa.select(name).where(name.in_([*customers]))))


async def record_usage(
    connection: AsyncConnection, edge: str, region: str, usage: Mapping[str, Iterable[LimitUsage]], now: int
) -> None:
    """Record the use of limits at an edge, replacing its previous report."""
    await connection.execute(sa.delete(limit_usage).where(limit_usage.c.edge == edge))
    rows = [
        {"customer": customer, "edge": edge, "region": region, "at": now, "limits": orjson.dumps([*limits]).decode()}
        for customer, limits in usage.items()
    ]
    await connection.execute(sa.insert(limit_usage), rows)


async def fetch_usage(connection: AsyncConnection, customer: str, now: int) -> list[EdgeUsage]:
    """Return a customer's use of limits at each edge with a current report, by region and edge."""
    columns = limit_usage.c
    statement = (
        sa.select(columns.edge, columns.region, columns.at, columns.limits)
        .where(columns.customer == customer, columns.at >= now - CURRENT_SECONDS)
        .order_by(columns.region, columns.edge)
    )
    return parse_rows(limit_usage.name, await connection.execute(statement), _parse_usage, itemgetter(0))


def _parse_usage(row: Sequence[Any]) -> EdgeUsage:
    edge, region, at, limits = row
    return EdgeUsage(edge, region, at, [LimitUsage(**load) for load in orjson.loads(limits)])


async def drop_usage(database: Database, now: int) -> None:
    """Delete outdated watches and reports, if there are any."""
    old = {limit_watches: limit_watches.c.until < now, limit_usage: limit_usage.c.at < now - CURRENT_SECONDS}
    async with database.reading() as connection:
        rows = {table: await connection.scalar(sa.select(sa.exists().where(old[table]))) for table in old}
    for table in (table for table in old if rows[table]):
        async with database.writing() as connection:
            await connection.execute(sa.delete(table).where(old[table]))
