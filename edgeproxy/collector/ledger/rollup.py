"""The roll-up of the ledger's minutes into hours and days, in the background.

An hour of UTC is rolled up some minutes after it has ended, one slice of series per transaction, so that batches wait
only for a slice. The row of `rollup` stores the progress. A transaction that counts usage locks this row until it ends.
For time that is already rolled up, it adds late usage to hours and days itself. So at any moment the hours plus the
minutes after the roll-up equal the counted usage, and so do the days.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.schema import DAY, HOUR, days, edges, hours, late_hours, ledger, rollup, series
from edgeproxy.collector.database.statements import AnySelect

GRACE = 300
"""An hour is rolled up this many seconds after its end. Most late usage has arrived by then."""
SERIES_PER_STEP = 2000
"""Series of a slice. A fully used series has sixty minutes."""

SERIES_PER_HOUR = 20
"""The cost of examining an hour, in series of a slice."""

Increments = Mapping[int, Mapping[int, int]]
"""Increments by the Unix second at the start of a minute (hour, day), then by series."""


class RollupState(NamedTuple):
    """The row of `rollup`: its progress, and the first Unix seconds of stored minutes and of stored hours."""

    hour: int
    series: int
    minutes_from: int
    hours_from: int

    def covers(self, minute: int, number: int) -> bool:
        """Return whether this minute of the series with this number is rolled up."""
        hour = minute - minute % HOUR
        return hour < self.hour or (hour == self.hour and number <= self.series)

    def split_increments(self, increments: Increments) -> tuple[Increments, Increments, Increments]:
        """Split increments of minutes into the increments of minutes, hours and days."""
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
    """Fetch the state that this transaction sees.

    With the state of another transaction, sums of hours would be wrong.
    """
    return RollupState(*(await connection.execute(SELECT_STATE)).one())


async def fetch_state_once(connection: AsyncConnection) -> RollupState:
    """Return `fetch_state` of a transaction that reads one snapshot. The calls of a page fetch it once in each."""
    return await fetch_once((fetch_state, connection), lambda: fetch_state(connection))


async def lock_state(database: Database, connection: AsyncConnection, *, exclusive: bool = False) -> RollupState:
    """Lock the roll-up state until the transaction ends, and return it. With `exclusive`, ingest waits, too."""
    await database.ledger.lock_rollup(connection, alone=exclusive)
    return await fetch_state(connection)


async def fetch_late_counts(connection: AsyncConnection, since: int, until: int) -> dict[int, int]:
    """Return the number of additions to each hour after its roll-up."""
    times = sa.cast(sa.func.sum(late_hours.c.times), sa.BigInteger)
    within = (late_hours.c.hour >= since) & (late_hours.c.hour < until)
    rows = await connection.execute(sa.select(late_hours.c.hour, times).where(within).group_by(late_hours.c.hour))
    return {row[0]: row[1] for row in rows}


async def roll_up_slice(database: Database, now: float, *, size: int = SERIES_PER_STEP) -> bool:
    """Roll up the next slice of hours that ended long enough ago. Return False if nothing is left.

    A slice is a number of series of one hour, or of several hours if these have fewer series.
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
            else:  # The whole hour is empty. The next hours may be, too.
                first = (await connection.execute(_select_next_minute(hour))).scalar_one()
                hour = due if first is None else min(due, first - first % HOUR)
            examined += len(rows) + SERIES_PER_HOUR
        by_day: dict[int, dict[int, int]] = defaultdict(dict)
        for one, values in increments.items():
            add_values(by_day[one - one % DAY], values)
        await database.ledger.add(connection, hours, increments)
        await database.ledger.add(connection, days, by_day)
        await connection.execute(sa.update(rollup).values(hour=hour, series=above))
    return hour < due


def add_values(sums: dict[int, int], values: Mapping[int, int]) -> None:
    """Add values to sums, by series."""
    for number, value in values.items():
        sums[number] = sums.get(number, 0) + value


async def _find_first_hour(connection: AsyncConnection, due: int) -> tuple[int, int]:
    """Return the first hour to roll up if none ever was, and the series that its first slice follows."""
    first = (await connection.execute(sa.select(sa.func.min(ledger.c.minute)))).scalar_one()
    return (due if first is None else min(due, first - first % HOUR)), 0


def _select_slice(hour: int, above: int, size: int) -> sa.Select[int, int | None]:
    """Return the series after `above` of edges with usage from this hour on, and the sum of each in this hour.

    Series are never deleted, and retired edges have ever more of them. Their series are not looked up in the ledger.
    """
    value = sa.select(sa.cast(sa.func.sum(ledger.c.value), sa.BigInteger)).where(ledger.c.minute < hour + HOUR)
    return (
        sa.select(series.c.id, _select_of_each(value, hour))
        .where(series.c.id > above, series.c.edge.in_(_select_live_edges(hour)))
        .order_by(series.c.id)
        .limit(size)
    )


def _select_next_minute(hour: int) -> sa.Select[int | None]:
    """Return the first minute with usage from this hour on."""
    first = _select_of_each(sa.select(sa.func.min(ledger.c.minute)), hour)
    return sa.select(sa.func.min(first)).select_from(series).where(series.c.edge.in_(_select_live_edges(hour)))


def _select_of_each(what: AnySelect, hour: int) -> sa.ScalarSelect[Any]:
    """Select a value per series from its minutes since this hour.

    The series are looked up one by one, because PostgreSQL's planner may take an hour for much of a month.
    """
    return what.where(ledger.c.series == series.c.id, ledger.c.minute >= hour).correlate(series).scalar_subquery()


def _select_live_edges(hour: int) -> sa.Select[str]:
    """Return the edges with usage from this hour on."""
    return sa.select(edges.c.edge).where(edges.c.latest >= hour)
