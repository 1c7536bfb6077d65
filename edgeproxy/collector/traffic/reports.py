"""Traffic reports. Each is recorded once, and deleted after its retention. They are not part of the ledger."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, build_insert, build_insert_new
from edgeproxy.collector.database.schema import HOUR, MINUTE, edges
from edgeproxy.collector.database.traffic_tables import customer_errors, traffic, traffic_routes
from edgeproxy.collector.traffic.errors import UNNAMED
from edgeproxy.wire.traffic_report import TrafficCounts, TrafficReport

ROWS_PER_STEP = 5_000
"""Approximate number of rows deleted per transaction."""


class UnknownEdgeError(Exception):
    """The edge has shipped no batch yet, so its token is unknown."""


class ForeignEdgeError(Exception):
    """The edge is bound to another token or region. The message is a sentence."""


async def require_bound(connection: AsyncConnection, token: str, edge: str, region: str) -> None:
    """Raise UnknownEdgeError or ForeignEdgeError unless the edge's batches come with this token from this region."""
    bound = (await connection.execute(sa.select(edges.c.token, edges.c.region).where(edges.c.edge == edge))).first()
    if bound is None or bound.token is None:
        raise UnknownEdgeError
    if bound.token != token:
        raise ForeignEdgeError(f"the edge {edge} is bound to another token than {token}")
    if bound.region not in (None, region):
        raise ForeignEdgeError(f"the edge {edge} is bound to region {bound.region}, not to {region}")


async def record_report(connection: AsyncConnection, token: str, edge: str, report: TrafficReport) -> bool:
    """Record a report of an edge. Return False if the edge's minute exists already.

    Raises the errors of `require_bound`.
    """
    await require_bound(connection, token, edge, report.region)
    minute, hour = ({"edge": edge, "region": report.region, "step": step} for step in (MINUTE, HOUR))
    minute["start"], hour["start"] = report.minute, report.minute - report.minute % HOUR
    total = _to_columns(report.total)
    new = build_insert_new(connection, traffic, *_keys(traffic))
    if (await connection.execute(new, minute | total)).rowcount != 1:
        return False
    await connection.execute(_build_addition(connection, traffic), hour | total)
    if routes := [{"route": route, **_to_columns(counts)} for route, counts in sorted(report.routes.items())]:
        await connection.execute(sa.insert(traffic_routes), [minute | row for row in routes])
        await connection.execute(_build_addition(connection, traffic_routes), [hour | row for row in routes])
    errors = dict(report.errors) | ({UNNAMED: report.unnamed} if report.unnamed else {})
    if errors:
        place = {"edge": edge, "region": report.region, "start": report.minute}
        rows = [{**place, **group._asdict(), "requests": requests} for group, requests in sorted(errors.items())]
        await connection.execute(sa.insert(customer_errors), rows)
    return True


def _to_columns(counts: TrafficCounts) -> dict[str, object]:
    numbers = {name: number for name, number in counts._asdict().items() if name != "buckets"}
    return {"minutes": 1, **numbers, **{f"bucket_{place}": number for place, number in enumerate(counts.buckets)}}


def _keys(table: sa.Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _build_addition(connection: AsyncConnection, table: sa.Table) -> sa.Executable:
    """Build the statement that inserts rows, and adds the numbers of rows that exist."""
    keys = _keys(table)
    insert = build_insert(connection, table)
    numbers = [column for column in table.c if column.name not in (*keys, "region")]
    sums = {column.name: column + insert.excluded[column.name] for column in numbers}
    return insert.on_conflict_do_update(index_elements=keys, set_=sums)


async def drop_errors(database: Database, before: int) -> bool:
    """Delete some errors of minutes before this Unix second, oldest first. Return False if there are none."""
    start = customer_errors.c.start
    async with database.reading() as connection:
        old = sa.select(start).where(start < before).order_by(start).limit(ROWS_PER_STEP)
        starts = (await connection.scalars(old)).all()
    if starts:
        async with database.writing() as connection:
            await connection.execute(sa.delete(customer_errors).where(start <= starts[-1]))
    return bool(starts)


async def drop_reports(database: Database, step: int, before: int) -> bool:
    """Delete some rows of a step before this Unix second, oldest first. Return False if there are none."""
    for table in (traffic_routes, traffic):
        start = table.c.start
        async with database.reading() as connection:
            old = sa.select(start).where(table.c.step == step, start < before).order_by(start).limit(ROWS_PER_STEP)
            starts = (await connection.scalars(old)).all()
        if starts:
            async with database.writing() as connection:
                await connection.execute(sa.delete(table).where(table.c.step == step, start <= starts[-1]))
            return True
    return False
