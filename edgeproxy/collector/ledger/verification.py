"""The verification that the ledger equals the batches, and that the batches are the chains that the edges shipped.

All data is from one snapshot, edge by edge. An edge's batches form one chain, from the first batch or from the
checkpoint at the end of the dropped ones. Each day must equal the sum of its stored and dropped batches. Each minute
after the latest dropped batch must equal its batches; an earlier minute must be at least their sum. Each hour is the
sum of its minutes and each day the sum of its hours, if the finer rows are stored. The first break is reported by name.
The minutes of one edge and day are in memory, or those of more days if batches arrived out of order.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.plural import format_count
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import (
    COUNTED,
    DAY,
    EVENTS,
    EVENTS_REGION,
    EVENTS_ROUTE,
    GAP,
    HOUR,
    MINUTE,
    QUARANTINED,
    batches,
    days,
    dropped,
    edges,
    events,
    hours,
    ledger,
    series,
    series_dimensions,
)
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.chain_audit import (
    BatchRow,
    BrokenChainError,
    ChainWalk,
    SeriesKey,
    add_rows,
    fetch_series_numbers,
    find_checkpoint,
)
from edgeproxy.collector.ledger.rollup import RollupState
from edgeproxy.config import dimensions

Cells = dict[tuple[int, int], int]
"""Values by the Unix second at the start of a minute (hour, day), and the number of a series."""


class LedgerTotals(NamedTuple):
    """Totals of a verified ledger: counts, and the sum of all values."""

    edges: int = 0
    batches: int = 0
    gaps: int = 0
    quarantined: int = 0
    total: int = 0
    dropped: int = 0
    """Batches dropped because of their age. They are included in `batches`."""
    events: int = 0
    """Events that services reported."""

    def __str__(self) -> str:
        events = f", {format_count(self.events, 'event')}" if self.events else ""
        dropped = f" ({self.dropped} of them dropped)" if self.dropped else ""
        return (
            f"{format_count(self.edges, 'edge')}, {format_count(self.batches, 'batch')}{dropped}, "
            f"{format_count(self.gaps, 'gap')}, "
            f"{self.quarantined} quarantined{events}; total {self.total}"
        )


async def verify_ledger(database: Database) -> LedgerTotals:
    """Return the totals of a consistent database. Raises BrokenChainError."""
    totals = LedgerTotals()
    async with database.reading(whole=True) as connection:
        rolled = await rollup.fetch_state(connection)
        for mark in (await connection.execute(sa.select(edges).order_by(edges.c.edge))).all():
            edge = EdgeVerifier(connection, mark.edge, rolled)
            edge_totals = await (edge.verify_events() if mark.edge == EVENTS else edge.verify(mark.seq, mark.hash))
            totals = LedgerTotals(*(total + other for total, other in zip(totals, edge_totals, strict=True)))
        unknown_edges = sa.select(series.c.edge).where(series.c.edge.not_in(sa.select(edges.c.edge))).limit(1)
        unknown_edge = await connection.scalar(unknown_edges)
        if unknown_edge is not None:
            raise BrokenChainError(f"edge {unknown_edge} has usage, and never shipped")
        await _verify_dimensions(connection)
    return totals


async def _verify_dimensions(connection: AsyncConnection) -> None:
    """Check that usage is grouped by its own dimensions. Raises BrokenChainError."""
    one = series_dimensions.c
    expected = {
        (number, name): value
        for number, text in await connection.execute(
            sa.select(series.c.id, series.c.dimensions).where(series.c.dimensions != "")
        )
        for name, value in dimensions.parse_dimensions(text).items()
    }
    actual = {
        (number, name): value
        for number, name, value in await connection.execute(sa.select(one.series, one.name, one.value))
    }
    for number, name in sorted(expected.keys() | actual.keys()):
        if expected.get((number, name)) != actual.get((number, name)):
            raise BrokenChainError(
                f"series {number} is grouped by {name} as {actual.get((number, name))}, "
                f"and is of {expected.get((number, name))}"
            )


class EdgeVerifier:
    """Compares an edge's batches with the ledger."""

    def __init__(self, connection: AsyncConnection, edge: str, rolled: RollupState) -> None:
        self._connection = connection
        self._edge = edge
        self._rolled = rolled
        self._numbers: dict[SeriesKey, int] = {}
        self._names: dict[int, SeriesKey] = {}
        self._partly = -1
        """The latest minute with usage from dropped batches."""

    async def verify(self, watermark: int, tip: str | None) -> LedgerTotals:
        """Return the totals of the edge's batches if the ledger agrees with them. Raises BrokenChainError."""
        checkpoint = await find_checkpoint(self._connection, self._edge)
        self._partly = -1 if checkpoint is None else checkpoint.minute
        self._numbers = await fetch_series_numbers(self._connection, self._edge)
        self._names = {number: what for what, number in self._numbers.items()}
        walk = ChainWalk(self._edge, checkpoint)
        await self._verify_watermark(watermark, walk.settled)
        last = await self._find_last_of_days()
        others = await self._find_days() - last.keys()
        count = {COUNTED: 0, GAP: 0, QUARANTINED: 0}
        reported: dict[int, dict[int, dict[SeriesKey, int]]] = defaultdict(dict)
        total = 0
        statement = sa.select(batches).where(batches.c.edge == self._edge).order_by(batches.c.seq)
        async for columns in await self._connection.stream(statement):
            row = BatchRow(*columns)
            batch = walk.follow(row)
            count[row.state] += 1
            if batch is not None and row.state == COUNTED:
                day = batch.minute - batch.minute % DAY
                add_rows(reported[day], batch.minute, batch)
                if row.seq == last[day]:
                    total += await self._verify_day(day, reported.pop(day))
        if walk.hash != tip:
            raise BrokenChainError(f"edge {self._edge}: its watermark has another hash than batch {walk.settled}")
        for day in sorted(others):
            total += await self._verify_day(day, {})
        gone = 0 if checkpoint is None else checkpoint.batches
        return LedgerTotals(1, count[COUNTED] + gone, count[GAP], count[QUARANTINED], total, gone)

    async def verify_events(self) -> LedgerTotals:
        """Verify service-reported usage against its events, and return its totals. Raises BrokenChainError."""
        self._numbers = await fetch_series_numbers(self._connection, self._edge)
        self._names = {number: what for what, number in self._numbers.items()}
        others = await self._find_days()
        columns = events.c
        minute = (columns.time - columns.time % MINUTE).label("minute")
        split = sa.func.coalesce(columns.folded, columns.dimensions).label("split")
        counts = sa.case((columns.is_summed == 1, columns.value), else_=0)  # 2: the event was taken back.
        value = sa.cast(sa.func.sum(counts), sa.BigInteger)
        statement = (
            sa.select(minute, columns.customer, columns.meter, split, value, sa.func.count())
            .where(columns.is_summed.in_((1, 2)))
            .group_by(minute, columns.customer, columns.meter, split)
            .order_by(minute)
        )
        readings = sa.select(sa.func.count()).select_from(events).where(columns.is_summed == 0)
        number = (await self._connection.execute(readings)).scalar_one()
        total = 0
        reported: dict[int, dict[SeriesKey, int]] = {}
        day = None
        async for at, customer, meter, text, sum_, count in await self._connection.stream(statement):
            if day is not None and at - at % DAY != day:
                total += await self._verify_day(day, reported)
                reported = {}
            day = at - at % DAY
            others.discard(day)
            if sum_:  # The ledger has no rows for events with a sum of zero.
                reported.setdefault(at, {})[EVENTS_REGION, customer, meter, EVENTS_ROUTE, text] = sum_
            number += count
        if day is not None:
            total += await self._verify_day(day, reported)
        for other in sorted(others):
            total += await self._verify_day(other, {})
        return LedgerTotals(total=total, events=number)

    async def _verify_watermark(self, watermark: int, settled: int) -> None:
        """Check that the edge's last batch matches its watermark. Raises BrokenChainError."""
        columns = batches.c
        last = sa.select(columns.last).where(columns.edge == self._edge).order_by(columns.seq.desc()).limit(1)
        settled = max(settled, await self._connection.scalar(last) or 0)
        if settled != watermark:
            raise BrokenChainError(f"edge {self._edge}: its watermark is {watermark}, and its last batch {settled}")

    async def _find_last_of_days(self) -> dict[int, int]:
        """Return the last seq that counts usage, by day."""
        day = batches.c.since - batches.c.since % DAY
        rows = await self._connection.execute(
            sa.select(day, sa.func.max(batches.c.seq))
            .where(batches.c.edge == self._edge, batches.c.state == COUNTED)
            .group_by(sa.literal_column("1"))
        )
        return {row[0]: row[1] for row in rows}

    async def _find_days(self) -> set[int]:
        """Return the days with any rows, whether batches cover them or not."""
        days_with_usage: set[int] = set()
        for table in (hours, days, dropped):
            number, time = table.primary_key
            there = sa.select(time - time % DAY).join(series, series.c.id == number)
            of_edge = there.where(series.c.edge == self._edge).distinct()
            days_with_usage.update(await self._connection.scalars(of_edge))
        # There are too many minutes to scan them all, so the index is used to skip from one day to the next.
        after: sa.BindParameter[int] = sa.bindparam("after", type_=sa.BigInteger)
        minute = sa.select(sa.func.min(ledger.c.minute)).where(ledger.c.series == series.c.id, ledger.c.minute >= after)
        first = sa.select(sa.func.min(minute.correlate(series).scalar_subquery()))
        next_ = first.select_from(series).where(series.c.edge == self._edge)
        at = (await self._connection.execute(next_, {"after": self._rolled.minutes_from})).scalar_one()
        while at is not None:
            days_with_usage.add(at - at % DAY)
            at = (await self._connection.execute(next_, {"after": at - at % DAY + DAY})).scalar_one()
        return days_with_usage

    async def _verify_day(self, day: int, reported: Mapping[int, Mapping[SeriesKey, int]]) -> int:
        """Verify a day against batch values by minute, and return its sum. Raises BrokenChainError."""
        rolled = self._rolled
        expected = self._resolve_numbers(reported)
        minutes = await self._fetch_cells(ledger, day, rolled.minutes_from)
        by_hour = await self._fetch_cells(hours, day, rolled.hours_from)
        by_day = await self._fetch_cells(days, day)
        self._compare_minutes(minutes, expected)
        settled = {cell: value for cell, value in minutes.items() if rolled.covers(*cell)}
        if day >= rolled.minutes_from:
            self._compare_sums("hour", by_hour, sum_cells(settled, HOUR), "its minutes")
        if day >= rolled.hours_from:
            self._compare_sums("day", by_day, sum_cells(by_hour, DAY), "its hours")
        # A day's row plus the minutes that are not rolled up yet is all usage of that day.
        rest = {cell: value for cell, value in minutes.items() if cell not in settled}
        total = add_cells(by_day, sum_cells(rest, DAY))
        self._compare_sums(
            "day", total, add_cells(sum_cells(expected, DAY), await self._fetch_cells(dropped, day)), "its batches"
        )
        return sum(total.values())

    def _resolve_numbers(self, reported: Mapping[int, Mapping[SeriesKey, int]]) -> Cells:
        """Resolve reported series to their numbers. Raises BrokenChainError if one has none."""
        for minute, values in reported.items():
            for what in values.keys() - self._numbers.keys():
                raise BrokenChainError(
                    f"edge {self._edge}: {describe_series(what)} in the minute {minute} is not in the ledger, "
                    f"and {values[what]} in its batches"
                )
        return {
            (minute, self._numbers[what]): value
            for minute, values in reported.items()
            for what, value in values.items()
        }

    async def _fetch_cells(self, table: sa.Table, day: int, since: int = 0) -> Cells:
        """Fetch this day's sums from a table, from a Unix second on."""
        number, time = table.primary_key
        rows = await self._connection.execute(
            sa.select(time, number, table.c.value)
            .join(series, series.c.id == number)
            .where(series.c.edge == self._edge, time >= max(day, since), time < day + DAY)
        )
        return {(time, number): value for time, number, value in rows}

    def _compare_minutes(self, minutes: Cells, expected: Cells) -> None:
        """Check that these minutes equal the batches. Raises BrokenChainError."""
        for cell in self._iterate_cells(minutes, expected):
            value, there = expected.get(cell, 0), minutes.get(cell)
            if cell[0] < self._rolled.minutes_from:
                continue
            if there is None or (there != value and (cell[0] > self._partly or there < value)):
                actual = "not" if there is None else there
                raise BrokenChainError(
                    f"{self._describe_cell('minute', cell)} is {actual} in the ledger, and {value} in its batches"
                )

    def _compare_sums(self, unit: str, actual: Cells, expected: Cells, of: str) -> None:
        """Check that these hours or days equal the expected sums. Raises BrokenChainError."""
        for cell in self._iterate_cells(actual, expected):
            one, other = actual.get(cell, 0), expected.get(cell, 0)
            if one != other:
                raise BrokenChainError(f"{self._describe_cell(unit, cell)} is {one} in the ledger, and {other} in {of}")

    def _iterate_cells(self, *some: Cells) -> Iterator[tuple[int, int]]:
        return iter(sorted(set().union(*some)))

    def _describe_cell(self, unit: str, cell: tuple[int, int]) -> str:
        return f"edge {self._edge}: {describe_series(self._names[cell[1]])} in the {unit} {cell[0]}"


def describe_series(what: SeriesKey) -> str:
    """Describe a series in words."""
    region, customer, meter, route, dimensions = what
    return f"{customer} {meter} {route}{' ' if dimensions else ''}{dimensions} of {region}"


def sum_cells(cells: Cells, unit: int) -> Cells:
    """Sum cells by hour or day. `unit` is its length in seconds."""
    sums: Cells = defaultdict(int)
    for (time, number), value in cells.items():
        sums[time - time % unit, number] += value
    return dict(sums)


def add_cells(one: Cells, other: Cells) -> Cells:
    """Return the sums of two maps of cells, cell by cell."""
    return {cell: one.get(cell, 0) + other.get(cell, 0) for cell in one.keys() | other.keys()}
