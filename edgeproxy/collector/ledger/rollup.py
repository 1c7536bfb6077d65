"""Hours and days out of the minutes of the ledger, in the background.

An hour of UTC is rolled up some minutes after it has ended: slice by slice of series, each in a transaction of its own,
so that batches wait only that long. How far it has come is the row of `rollup`. Whoever counts holds it to the end of
the transaction, and adds to hours and days at once what comes late, for what is rolled up already. So at any moment the
hours, and the minutes after what is rolled up, are together what was counted, and the same with days.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, days, edges, hours, late_hours, ledger, rollup, series
from edgeproxy.collector.database.statements import AnySelect

GRACE = 300
"""Seconds after the end of an hour until it is rolled up; most of what comes late has come by then."""
SERIES_PER_STEP = 2000
"""Series of a slice; fully used they have sixty minutes each."""

SERIES_PER_HOUR = 20
"""Cost of examining an hour, in series of a slice."""

Increments = Mapping[int, Mapping[int, int]]
"""Increments by the Unix second at which a minute (hour, day) begins, then by series."""


class RollupState(NamedTuple):
    """Rollup progress, and Unix seconds from which minutes and hours are stored: the row of `rollup`."""

    hour: int
    series: int
    minutes_from: int
    hours_from: int

    def covers(self, minute: int, number: int) -> bool:
        """Return whether this minute of the series of this number is rolled up."""
        hour = minute - minute % HOUR
        return hour < self.hour or (hour == self.hour and number <= self.series)

    def split_increments(self, increments: Increments) -> tuple[Increments, Increments, Increments]:
        """Split increments of minutes into what to add to minutes, hours and days."""
        by_hour: dict[int, dict[int, int]] = defaultdict(dict)
        by_day: dict[int, dict[int, int]] = defaultdict(dict)
        for minute, values in increments.items():
            hour, day = minute - minute % HOUR, minute - minute % DAY
            if hour > self.hour:
                continue
            in_hour, in_day = by_hour[hour], by_day[day]
            for number, value in values.items():
                if hour < self.hour or number <= self.series:
                    in_hour[number] = in_hour.get(number, 0) + value
                    in_day[number] = in_day.get(number, 0) + value
        minutes = {minute: values for minute, values in increments.items() if minute >= self.minutes_from}
        return minutes, {hour: values for hour, values in by_hour.items() if hour >= self.hours_from}, by_day


SELECT_STATE = sa.select(*(rollup.c[name] for name in RollupState._fields))


async def fetch_state(connection: AsyncConnection) -> RollupState:
    """Fetch the state as this transaction sees it: with that of another one sums of hours would be wrong."""
    return RollupState(*(await connection.execute(SELECT_STATE)).one())


async def lock_state(database: Database, connection: AsyncConnection, *, exclusive: bool = False) -> RollupState:
    """Return what is rolled up and lock it until the transaction ends; with `alone`, ingest waits for that too."""
    await database.lock_rollup(connection, alone=exclusive)
    return await fetch_state(connection)


async def fetch_late_counts(connection: AsyncConnection, since: int, until: int) -> dict[int, int]:
    """Return, by hour, the number of additions after it was rolled up."""
    times = sa.cast(sa.func.sum(late_hours.c.times), sa.BigInteger)
    within = (late_hours.c.hour >= since) & (late_hours.c.hour < until)
    rows = await connection.execute(sa.select(late_hours.c.hour, times).where(within).group_by(late_hours.c.hour))
    return {row[0]: row[1] for row in rows}


async def roll_up_slice(database: Database, now: float, *, size: int = SERIES_PER_STEP) -> bool:
    """Roll up the next slice of what ended long enough ago; False where nothing is left.

    A slice is so many series of an hour, or where it has fewer, of as many hours as have these.
    """
    async with database.writing() as connection:
        state = await lock_state(database, connection, exclusive=True)
        due = int(now - GRACE) // HOUR * HOUR
        if state.hour >= due:
            return False
        hour, above = (
            await _find_first_hour(connection, due) if state.hour == state.series == 0 else (state.hour, state.series)
        )
        increments: dict[int, dict[int, int]] = {}
        examined = 0
        while hour < due and examined < size:
            rows = (await connection.execute(_select_slice(hour, above, size - examined))).all()
            increments[hour] = {number: value for number, value in rows if value is not None}
            if len(rows) == size - examined:
                above = rows[-1][0]
            elif above or increments[hour]:
                hour, above = hour + HOUR, 0
            else:  # Nothing in the whole hour: nor may there be in the next ones.
                first = (await connection.execute(_select_next_minute(hour))).scalar_one()
                hour = due if first is None else min(due, first - first % HOUR)
            examined += len(rows) + SERIES_PER_HOUR
        by_day: dict[int, dict[int, int]] = defaultdict(dict)
        for one, values in increments.items():
            add_values(by_day[one - one % DAY], values)
        await database.add(connection, hours, increments)
        await database.add(connection, days, by_day)
        await connection.execute(sa.update(rollup).values(hour=hour, series=above))
    return hour < due


def add_values(sums: dict[int, int], values: Mapping[int, int]) -> None:
    """Add values to sums, by series."""
    for number, value in values.items():
        sums[number] = sums.get(number, 0) + value


async def _find_first_hour(connection: AsyncConnection, due: int) -> tuple[int, int]:
    """Return the first hour to be rolled up where none ever was, and the series after which it begins."""
    first = (await connection.execute(sa.select(sa.func.min(ledger.c.minute)))).scalar_one()
    return (due if first is None else min(due, first - first % HOUR)), 0


def _select_slice(hour: int, above: int, size: int) -> sa.Select[int, int | None]:
    """Return the series after `above` of edges that have anything from this hour on, and what each has come to in it.

    Series are for ever, and those of edges that are gone get ever more: they are not looked up in the ledger.
    """
    value = sa.select(sa.cast(sa.func.sum(ledger.c.value), sa.BigInteger)).where(ledger.c.minute < hour + HOUR)
    return (
        sa.select(series.c.id, _select_of_each(value, hour))
        .where(series.c.id > above, series.c.edge.in_(_select_live_edges(hour)))
        .order_by(series.c.id)
        .limit(size)
    )


def _select_next_minute(hour: int) -> sa.Select[int | None]:
    """Return the first minute from this hour on that has anything."""
    first = _select_of_each(sa.select(sa.func.min(ledger.c.minute)), hour)
    return sa.select(sa.func.min(first)).select_from(series).where(series.c.edge.in_(_select_live_edges(hour)))


def _select_of_each(what: AnySelect, hour: int) -> sa.ScalarSelect[Any]:
    """Something of the minutes from this hour on of each series.

    Looked up one by one: to the planner of PostgreSQL an hour may look like much of a month.
    """
    return what.where(ledger.c.series == series.c.id, ledger.c.minute >= hour).correlate(series).scalar_subquery()


def _select_live_edges(hour: int) -> sa.Select[str]:
    """Return the edges that have anything from this hour on."""
    return sa.select(edges.c.edge).where(edges.c.latest >= hour)
