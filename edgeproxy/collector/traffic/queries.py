"""The traffic of a time, by step and by region, edge or route. Also the missing minutes."""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, edges
from edgeproxy.collector.database.statements import AnyRow
from edgeproxy.collector.database.traffic_tables import traffic, traffic_routes
from edgeproxy.collector.ledger.edges import SERVING
from edgeproxy.wire.traffic_report import BUCKETS, TrafficCounts

ROWS_MAX = 5000
"""Most rows of an answer."""
POINTS = 60
"""The default number of steps is at most this."""
STEPS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY)
LATE_SECONDS = 2 * MINUTE
"""Seconds after a minute until its missing report counts as missing."""
GROUPS = ("region", "edge", "route")


class InvalidTrafficQueryError(Exception):
    """The query cannot be answered. The message is a sentence."""


class TrafficQuery(NamedTuple):
    """Traffic within [since, until), Unix seconds on the step, grouped by step and some of GROUPS."""

    since: int
    until: int
    step: int
    by: tuple[str, ...]
    resolution: int
    """The seconds of the rows to read: MINUTE or HOUR."""


class TrafficRow(NamedTuple):
    """The traffic of a group in a step."""

    start: int
    group: tuple[str, ...]
    counts: TrafficCounts


class EdgeCoverage(NamedTuple):
    """The reported part of a time, by edge."""

    edge: str
    region: str | None
    minutes: int
    """The reported minutes."""
    missing: int | None
    """The minutes missing since its first report, or None if it has sent no report."""


def choose_step(seconds: int) -> int:
    """Return the shortest step that divides a time into at most POINTS steps."""
    return next((step for step in STEPS if seconds <= step * POINTS), STEPS[-1])


def build_query(
    since: int, until: int, step: int | None, by: tuple[str, ...], now: float, minutes_seconds: float | None
) -> TrafficQuery:
    """Build a query. Its times are extended to whole steps. `minutes_seconds` is the retention of minutes.

    Raises InvalidTrafficQueryError.
    """
    if until <= since:
        raise InvalidTrafficQueryError("to: is not after from")
    step = step or choose_step(until - since)
    if step % MINUTE or (step > HOUR and step % HOUR) or DAY % step:
        raise InvalidTrafficQueryError("step: must be whole minutes, or whole hours, that divide a day")
    since -= since % step
    until += -until % step
    resolution = HOUR if step % HOUR == 0 else MINUTE
    if resolution == MINUTE and minutes_seconds is not None and since < now - minutes_seconds:
        raise InvalidTrafficQueryError("from: minutes are not kept for that long; ask with step=1h")
    return TrafficQuery(since, until, step, by, resolution)


async def fetch_traffic(connection: AsyncConnection, query: TrafficQuery) -> list[TrafficRow]:
    """Return the rows of a query, by time and group. Raises InvalidTrafficQueryError if there are too many."""
    columns = (traffic_routes if "route" in query.by else traffic).c
    start = (columns.start - columns.start % query.step).label("begins")
    groups = [columns[name] for name in query.by]
    numbers = [columns[name] for name in (*TrafficCounts._fields[:4], *(f"bucket_{n}" for n in range(BUCKETS)))]
    sums = [sa.cast(sa.func.sum(number), sa.BigInteger) for number in numbers]
    statement = (
        sa.select(start, *groups, *sums)
        .where(columns.step == query.resolution, columns.start >= query.since, columns.start < query.until)
        .group_by(start, *groups)
        .order_by(start, *groups)
        .limit(ROWS_MAX + 1)
    )
    rows: Sequence[AnyRow] = (await connection.execute(statement)).all()
    if len(rows) > ROWS_MAX:
        raise InvalidTrafficQueryError(f"step: makes more than {ROWS_MAX} rows; choose a longer one, or fewer groups")
    end = 1 + len(groups)
    return [
        TrafficRow(row[0], tuple(row[1:end]), TrafficCounts._make((*row[end : end + 4], tuple(row[end + 4 :]))))
        for row in rows
    ]


async def fetch_coverage(connection: AsyncConnection, query: TrafficQuery, now: float) -> list[EdgeCoverage]:
    """Return the reported part of the time for each serving edge.

    An edge that reported in the hour before must report from the beginning. Other edges must report since their first
    report.
    """
    columns, present = traffic.c, int(now)
    minutes = sa.cast(sa.func.sum(columns.minutes), sa.BigInteger)
    reported = sa.select(columns.edge, minutes, sa.func.min(columns.start)).where(
        columns.step == query.resolution, columns.start >= query.since, columns.start < query.until
    )
    covered = {row[0]: (row[1], row[2]) for row in await connection.execute(reported.group_by(columns.edge))}
    earlier = sa.select(columns.edge).where(
        columns.step == query.resolution, columns.start >= query.since - HOUR, columns.start < query.since
    )
    before = set(await connection.scalars(earlier.distinct()))
    if query.resolution == HOUR:
        # The hour of an edge's first report is complete from that report on.
        firsts = [(edge, first) for edge, (_, first) in covered.items() if edge not in before]
        begun = sa.select(columns.edge, columns.minutes).where(
            columns.step == HOUR, sa.tuple_(columns.edge, columns.start).in_(firsts)
        )
        for edge, present_minutes in await connection.execute(begun):
            count, first = covered[edge]
            covered[edge] = count, first + HOUR - min(HOUR, present_minutes * MINUTE)
    due = min(query.until, present - present % MINUTE - LATE_SECONDS)
    serving = sa.select(edges.c.edge, edges.c.region).where(SERVING).order_by(edges.c.edge)
    coverage = []
    for edge, region in await connection.execute(serving):
        count, first = covered.get(edge, (0, None))
        since = query.since if edge in before else first
        missing = None if since is None else max(0, (due - since) // MINUTE - count)
        coverage.append(EdgeCoverage(edge, region, count, missing))
    return coverage
