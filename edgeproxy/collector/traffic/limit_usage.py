"""What watched customers use of their limits at each edge now: who is watched, and what edges report of them.

A customer is watched for a minute after somebody asked for its limits. Edges report WATCHED_MAX customers: those whom
operators look at first, of the others the last ones.
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
"""Seconds for which a customer is watched."""
RENEW_SECONDS = 30
"""Seconds that remain from which on a watch is prolonged, so that a page does not write each time that it is shown."""
CURRENT_SECONDS = 4 * REPORT_SECONDS
"""Age up to which a report is current."""


class EdgeUsage(NamedTuple):
    """What a customer uses of its limits at an edge, as of a Unix second."""

    edge: str
    region: str
    at: int
    limits: Sequence[LimitUsage]


async def is_watched(connection: AsyncConnection, customer: str, now: int, is_operator: bool) -> bool:
    """Return whether a customer is watched for some time yet, by an operator if one asks."""
    column = limit_watches.c.operator_until if is_operator else limit_watches.c.until
    until = await connection.scalar(sa.select(column).where(limit_watches.c.customer == customer))
    return until is not None and until >= now + RENEW_SECONDS


async def watch(connection: AsyncConnection, customer: str, now: int, is_operator: bool) -> None:
    """Have edges report a customer for WATCH_SECONDS."""
    insert = build_insert(connection, limit_watches)
    until = now + WATCH_SECONDS
    changes = {"until": until} | ({"operator_until": until} if is_operator else {})
    values = {"customer": customer, "operator_until": 0, **changes}
    await connection.execute(insert.values(values).on_conflict_do_update(index_elements=["customer"], set_=changes))


async def fetch_watched(connection: AsyncConnection, now: int) -> list[str]:
    """Return the customers whom edges are to report."""
    columns = limit_watches.c
    by_operator = sa.case((columns.operator_until > now, 0), else_=1)
    statement = sa.select(columns.customer).where(columns.until > now)
    ordered = statement.order_by(by_operator, columns.until.desc(), columns.customer).limit(WATCHED_MAX)
    return list((await connection.execute(ordered)).scalars())


async def select_watched(connection: AsyncConnection, customers: Iterable[str]) -> list[str]:
    """Return which of these customers are, or were a moment ago, watched."""
    name = limit_watches.c.customer
    return list((await connection.execute(sa.select(name).where(name.in_([*customers])))).scalars())


async def record_usage(
    connection: AsyncConnection, edge: str, region: str, usage: Mapping[str, Iterable[LimitUsage]], now: int
) -> None:
    """Record what customers use at an edge, in the place of its report before."""
    await connection.execute(sa.delete(limit_usage).where(limit_usage.c.edge == edge))
    rows = [
        {"customer": customer, "edge": edge, "region": region, "at": now, "limits": orjson.dumps([*limits]).decode()}
        for customer, limits in usage.items()
    ]
    await connection.execute(sa.insert(limit_usage), rows)


async def fetch_usage(connection: AsyncConnection, customer: str, now: int) -> list[EdgeUsage]:
    """Return what a customer uses at each edge that has reported a moment ago, by region and edge."""
    columns = limit_usage.c
    statement = (
        sa.select(columns.edge, columns.region, columns.at, columns.limits)
        .where(columns.customer == customer, columns.at >= now - CURRENT_SECONDS)
        .order_by(columns.region, columns.edge)
    )
    return parse_rows(limit_usage.name, await connection.execute(statement), _parse_usage, itemgetter(0))


def _parse_usage(row: Sequence[Any]) -> EdgeUsage:
    edge, region, at, limits = row
    return EdgeUsage(edge, region, at, [LimitUsage(**one) for one in orjson.loads(limits)])


async def drop_usage(database: Database, now: int) -> None:
    """Drop what is not current any more, if there is anything."""
    old = {limit_watches: limit_watches.c.until < now, limit_usage: limit_usage.c.at < now - CURRENT_SECONDS}
    async with database.reading() as connection:
        rows = {table: await connection.scalar(sa.select(sa.exists().where(old[table]))) for table in old}
    for table in (table for table in old if rows[table]):
        async with database.writing() as connection:
            await connection.execute(sa.delete(table).where(old[table]))
