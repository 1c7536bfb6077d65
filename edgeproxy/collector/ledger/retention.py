"""Retention: old minutes, hours and batches are dropped, and their sums stay.

Minutes and hours: first the row of `rollup` records the start of the stored time, so that usage before it is neither
counted there nor queried. Then the older rows are deleted in small steps, or whole partitions at once. Their sums are
in the hours and days.

Batches: the oldest counted batches of an edge are dropped, each verified once more. Their sums by day are added to
`dropped`, and the edge's row of `checkpoints` records how far that goes. Gaps and quarantined batches stay, and so does
each edge's last batch, as it may be sent again.
"""

import asyncio
import time
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import (
    COUNTED,
    DAY,
    batches,
    checkpoints,
    dropped,
    edges,
    hours,
    late_hours,
    ledger,
    series,
)
from edgeproxy.collector.database.schema import rollup as rolled
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
from edgeproxy.config.collector.settings import Retention as Kept
from edgeproxy.wire.batch import Batch

BATCHES_PER_STEP = 200
"""The most batches of an edge in one step."""
ROWS_PER_STEP = 20_000
"""The most rows of batches dropped together; also roughly the most ledger rows."""
UNUSED_SERIES_SECONDS = 120.0
"""An unused partition stays for this many seconds, because a reader may have begun before."""


class Retention:
    """A round of dropping old rows. `drop_next` drops a few of them in short transactions."""

    def __init__(self, database: Database, settings: Kept, *, unused: float = UNUSED_SERIES_SECONDS) -> None:
        self._database = database
        self._settings = settings
        self._unused = unused
        self._log = log.get_logger()
        self._minutes = None if database.ledger.has_partitions else Sweep(database, ledger)
        self._hours = Sweep(database, hours)
        self._from = (0, 0)
        """First Unix seconds of stored minutes and hours, as last read."""
        self._since = 0.0
        """Monotonic time of the last change of `_from`."""
        self._edges: list[str] = []
        """Edges whose batches this round has yet to examine."""
        self.broken: dict[str, str] = {}
        """The first break by edge. The batches of these edges are not dropped."""

    async def begin_round(self, now: float) -> None:
        """Begin a round: advance the start of stored minutes and hours, and list the edges."""
        self._from, before = await self._advance_limits(now), self._from
        if self._from != before:
            self._since = time.monotonic()
        if self._settings.batches is not None:
            async with self._database.reading() as connection:
                names = await connection.execute(sa.select(edges.c.edge).order_by(edges.c.edge.desc()))
                self._edges = list(names.scalars())

    async def drop_next(self, now: float) -> bool:
        """Drop a few rows. Return False if the round is over."""
        minutes_from, hours_from = self._from
        if self._minutes is not None:
            more = await self._minutes.delete_next(minutes_from)
        else:
            is_unused = time.monotonic() - self._since >= self._unused
            more = is_unused and await self._database.ledger.drop_month(minutes_from)
        if more or await self._hours.delete_next(hours_from):
            return True
        if not self._edges:
            return False
        edge = self._edges[-1]
        try:
            more = await self._drop_batches(edge, round((now - (self._settings.batches or 0)) * 1000))
            self.broken.pop(edge, None)
        except BrokenChainError as error:
            more = False
            if self.broken.get(edge) != str(error):
                self._log.error("batches are not dropped, as they prove nothing", edge=edge, why=str(error))
                self.broken[edge] = str(error)
        if not more:
            self._edges.pop()
        return True

    # ---- minutes and hours

    async def _advance_limits(self, now: float) -> tuple[int, int]:
        """Advance and return the first Unix seconds of stored minutes and of stored hours. They never go back."""
        async with self._database.writing() as connection:
            at = await rollup.lock_state(self._database, connection, exclusive=True)
            minutes_from, hours_from = at.minutes_from, at.hours_from
            # Only whole days that are rolled up are dropped.
            last = at.hour - at.hour % DAY
            if self._settings.minutes is not None:
                before = max(0, min(last, int(now - self._settings.minutes)))
                minutes_from = max(minutes_from, self._database.ledger.droppable(before))
            if self._settings.hours is not None:
                before = max(0, int(now - self._settings.hours))
                hours_from = max(hours_from, min(minutes_from, before - before % DAY))
            if (minutes_from, hours_from) != (at.minutes_from, at.hours_from):
                await connection.execute(sa.update(rolled).values(minutes_from=minutes_from, hours_from=hours_from))
                await connection.execute(sa.delete(late_hours).where(late_hours.c.hour < hours_from))
                self._log.info("less is kept", minutes_from=minutes_from, hours_from=hours_from)
        return minutes_from, hours_from

    # ---- batches

    async def _drop_batches(self, edge: str, before: int) -> bool:
        """Drop some batches of an edge received before this Unix millisecond. Return whether there were any.

        Raises BrokenChainError if they are not a valid chain.
        """
        async with self._database.reading(whole=True) as connection:
            checkpoint = await find_checkpoint(connection, edge)
            seqs = await _list_droppable(connection, edge, 0 if checkpoint is None else checkpoint.seq, before)
            if not seqs:
                return False
            statement = (
                sa.select(batches).where(batches.c.edge == edge, batches.c.seq.in_(seqs)).order_by(batches.c.seq)
            )
            rows = [BatchRow(*row) for row in await connection.execute(statement)]
            numbers = await fetch_series_numbers(connection, edge)
        walk = ChainWalk(edge, checkpoint)
        counted = await asyncio.to_thread(_parse_counted, walk, rows)
        by_day: dict[int, dict[SeriesKey, int]] = {}
        for batch in counted:
            add_rows(by_day, batch.minute - batch.minute % DAY, batch)
        for what in {what for values in by_day.values() for what in values} - numbers.keys():
            raise BrokenChainError(f"edge {edge}: {' '.join(what)} is in its batches, and not in the ledger")
        grown = {day: {numbers[what]: value for what, value in values.items()} for day, values in by_day.items()}
        latest = [-1 if checkpoint is None else checkpoint.minute, *(batch.minute for batch in counted if batch.rows)]
        new_checkpoint = {"edge": edge, "seq": walk.settled, "hash": walk.hash, "minute": max(latest)}
        new_checkpoint["batches"] = len(counted) + (0 if checkpoint is None else checkpoint.batches)
        async with self._database.writing() as connection:
            # Counting takes the same lock.
            await connection.execute(sa.select(edges.c.seq).where(edges.c.edge == edge).with_for_update())
            if await find_checkpoint(connection, edge) != checkpoint:
                return True  # Another collector was faster.
            await self._database.ledger.add(connection, dropped, grown)
            if checkpoint is None:
                await connection.execute(sa.insert(checkpoints).values(new_checkpoint))
            else:
                await connection.execute(
                    sa.update(checkpoints).where(checkpoints.c.edge == edge).values(new_checkpoint)
                )
            gone = [batch.seq for batch in counted]
            await connection.execute(sa.delete(batches).where(batches.c.edge == edge, batches.c.seq.in_(gone)))
        return True


async def _list_droppable(connection: AsyncConnection, edge: str, seq: int, before: int) -> list[int]:
    """Return the seqs of some batches to drop: the next after a checkpoint, or earlier ones counted since."""
    columns = batches.c
    which = sa.select(columns.seq, columns.last, columns.rows, columns.received).where(columns.edge == edge)
    late = which.where(columns.seq <= seq, columns.state == COUNTED, columns.received < before).limit(BATCHES_PER_STEP)
    candidates = list((await connection.execute(late)).all())
    if not candidates:
        tip = sa.select(edges.c.seq).where(edges.c.edge == edge).scalar_subquery()
        next_ = which.where(columns.seq > seq, columns.last < tip).order_by(columns.seq).limit(BATCHES_PER_STEP)
        for row in await connection.execute(next_):
            if row.received >= before:
                break
            candidates.append(row)
    seqs: list[int] = []
    rows = 0
    for row in candidates:
        if seqs and rows + row.rows > ROWS_PER_STEP:
            break
        rows += row.rows
        seqs.append(row.seq)
    return seqs


def _parse_counted(walk: ChainWalk, rows: Sequence[BatchRow]) -> list[Batch]:
    """Parse these rows, and return the batches that count usage. Raises BrokenChainError."""
    parsed = [walk.follow(row) for row in rows]
    return [batch for batch in parsed if batch is not None and batch.gap is None]


class Sweep:
    """A sweep of a table of sums: it deletes rows older than some moment, series by series, in small steps."""

    def __init__(self, database: Database, table: sa.Table) -> None:
        self._database = database
        self._table = table
        self._time: sa.Column[int] = list(table.primary_key)[1]
        self._swept = 0
        """No rows are left before this Unix second."""
        self._above = 0
        """For the requested moment, the series up to this one have no older rows either."""
        self._size = 16
        """The number of series swept at once."""

    async def delete_next(self, before: int) -> bool:
        """Delete some rows. Return False if none are left before this Unix second."""
        if self._swept >= before:
            return False
        time_, number = self._time, self._table.c.series
        oldest = (
            sa.select(sa.func.min(time_))
            .where(number == series.c.id, time_ < before)
            .correlate(series)
            .scalar_subquery()
        )
        having = (
            sa.select(series.c.id, oldest)
            .where(series.c.id > self._above, oldest.is_not(None))
            .order_by(series.c.id)
            .limit(self._size)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(having)).all()
        if not rows:
            self._swept, self._above = before, 0
            return False
        until = min(before, min(first for _, first in rows) + DAY)
        which = sa.delete(self._table).where(number.in_([one for one, _ in rows]), time_ < until)
        async with self._database.writing() as connection:
            gone = (await connection.execute(which)).rowcount
        if until == before:
            self._above = rows[-1][0]
        if gone < ROWS_PER_STEP // 2:
            self._size = min(2 * self._size, 4096)
        elif gone > ROWS_PER_STEP:
            self._size = max(self._size // 2, 1)
        return True
