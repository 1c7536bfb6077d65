"""Usage of closed hours in the ledger, that is, completely rolled-up hours."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import HOUR, events, hours, series
from edgeproxy.collector.exports import reading_files
from edgeproxy.collector.exports.files import Rows
from edgeproxy.collector.exports.reading_files import ReadingRow
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.readings import SPLIT, ZERO

of, at, event = series.c, hours.c, events.c


class ClosedHours(NamedTuple):
    """Closed hours, in Unix seconds."""

    since: int
    """The first hour with usage, or `until` if there is none."""
    retained_from: int
    """For earlier hours only readings are kept."""
    until: int
    """All earlier hours are closed."""


async def fetch_closed_hours(connection: AsyncConnection) -> ClosedHours:
    """Return the closed hours in the view of this transaction."""
    rolled = await rollup.fetch_state(connection)
    # One query per series, because the hours have no index by time.
    first = sa.select(sa.func.min(at.hour)).where(at.series == of.id).correlate(series).scalar_subquery()
    since = (await connection.execute(sa.select(sa.func.min(first)))).scalar_one()
    return ClosedHours(rolled.hour if since is None else since, rolled.hours_from, rolled.hour)


async def count_readings(connection: AsyncConnection, since: int, until: int) -> dict[int, int]:
    """Count the readings of each hour that has any, from `since` on and before `until`."""
    hour = (event.time - event.time % HOUR).label("hour")
    within = (event.is_summed == ZERO) & (event.time >= since) & (event.time < until)
    some = sa.select(hour, sa.func.count()).where(within).group_by(hour)
    return {row[0]: row[1] for row in await connection.execute(some)}


async def fetch_readings(connection: AsyncConnection, at_hour: int) -> reading_files.Rows:
    """Return the readings of an hour."""
    columns = (
        event.source,
        event.id,
        event.time,
        event.customer,
        event.meter,
        SPLIT,
        event.value,
        event.item,
    )
    within = (event.is_summed == ZERO) & (event.time >= at_hour) & (event.time < at_hour + HOUR)
    rows = await connection.stream(sa.select(*columns).where(within))
    return {(source, number): ReadingRow(*rest) async for source, number, *rest in rows}


async def stream_hours(connection: AsyncConnection, since: int, until: int) -> AsyncIterator[tuple[int, Rows]]:
    """Yield each hour from `since` on and before `until`, in order, with the sum of each series."""
    statement = (
        sa.select(at.hour, of.customer, of.meter, of.region, of.edge, of.route, of.dimensions, at.value)
        .join_from(series, hours, at.series == of.id)
        .where(at.hour >= since, at.hour < until, at.value > 0)
        .order_by(at.hour)
    )
    hour, rows = since, Rows()
    async for one, *names, value in await connection.stream(statement):
        while hour < one:
            yield hour, rows
            hour, rows = hour + HOUR, {}
        customer, meter, region, edge, route, split = names
        rows[customer, meter, region, edge, route, split] = value
    while hour < until:
        yield hour, rows
        hour, rows = hour + HOUR, {}
