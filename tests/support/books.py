"""The collector's ledger in the test's process, with a test clock, beside a reference of the counts."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, days, hours, ledger, series
from edgeproxy.collector.ledger import batch_writer, rollup
from edgeproxy.collector.ledger.batch_writer import BatchOutcome, BatchWriter
from edgeproxy.collector.ledger.chain import Shipper, Verdict
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.received_batch import BatchHeaders, ReceivedBatch, decode_batch
from edgeproxy.collector.ledger.retention import Retention
from edgeproxy.collector.ledger.rollup import RollupState
from edgeproxy.collector.ledger.verification import LedgerTotals, verify_ledger
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import Retention as Kept
from edgeproxy.wire.batch import Batch, compute_digest, format_batch
from loadtest.testbed.batch_chains import NOON
from loadtest.testbed.tables_ready import put_tables

Cell = tuple[int, str, str, str, str]
"""Start of the minute (hour, day), region, customer, meter, route."""


class Clock:
    """The clock that stamps received batches."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def time(self) -> float:
        """Return the Unix seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of ingest."""
    return set_clock(monkeypatch)


def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Set the clock of ingest with a patch that another scope than a test undoes."""
    made = Clock()
    monkeypatch.setattr(batch_writer, "time", SimpleNamespace(time=made.time, monotonic=batch_writer.time.monotonic))
    return made


class Books:
    """A collector's ingest and maintenance on a database that others may share; created by `open`.

    `counted` is the reference: the counts of each minute by all that share it.
    """

    def __init__(self, database: Database, clock: Clock, kept: Kept, counted: Counter[Cell]) -> None:
        self.database = database
        self.clock = clock
        self.counted = counted
        metrics = Metrics()
        self.ingest = BatchWriter(database, KnownNames((), (), metrics), metrics)
        self.retention = Retention(database, kept, unused=0)
        self._running = asyncio.get_running_loop().create_task(self.ingest.run())

    @classmethod
    async def open(
        cls, url: str, clock: Clock, kept: Kept | None = None, counted: Counter[Cell] | None = None
    ) -> "Books":
        """Connect to a database; create missing tables."""
        counted = Counter() if counted is None else counted
        database = await Database.connect(put_tables(url))
        if database.is_sqlite:
            event.listen(database._writer.sync_engine.pool, "checkout", hurry)
        return cls(database, clock, kept or forever(), counted)

    async def close(self) -> None:
        """Settle all batches and close the database."""
        self.ingest.end()
        await self._running
        await self.database.close()

    async def ship(self, batch: Batch, sent: bytes | None = None) -> BatchOutcome:
        """Settle a batch. `sent` replaces the bytes of its body."""
        whole = format_batch(batch)
        said = BatchHeaders(batch.edge, batch.seq, compute_digest(whole))
        return await self.settle(decode_batch(said, whole if sent is None else sent, "identity"))

    async def settle(self, arrival: ReceivedBatch) -> BatchOutcome:
        """Settle a received batch, and add its rows to the reference if they count."""
        outcome = await self.ingest.settle_batch(arrival, Shipper("edges"))
        batch = arrival.batch
        if outcome.verdict in (Verdict.COUNT, Verdict.MEND) and batch is not None:
            for customer, meter, route, value, *_ in batch.rows:
                self.counted[batch.minute, batch.region, customer, meter, route] += value
        return outcome

    async def roll_up(self, *, size: int = rollup.SERIES_PER_STEP) -> None:
        """Roll up all that is due."""
        while await rollup.roll_up_slice(self.database, self.clock.now, size=size):
            pass

    async def retain(self) -> None:
        """Run retention once."""
        await self.retention.begin_round(self.clock.now)
        while await self.retention.drop_next(self.clock.now):
            pass

    async def check(self) -> RollupState:
        """Check in one snapshot that each table holds the expected rows and all hashes are valid. Returns the roll-up
        state.
        """
        async with self.database.reading(whole=True) as connection:
            at = await rollup.fetch_state(connection)
            kept: dict[str, dict[Cell, int]] = {}
            for table, since in ((ledger, at.minutes_from), (hours, at.hours_from), (days, 0)):
                number, time = table.primary_key
                columns = (time, series.c.region, series.c.customer, series.c.meter, series.c.route)
                rows = await connection.execute(
                    sa.select(number, *columns, table.c.value).join(series, series.c.id == number).where(time >= since)
                )
                kept[table.name] = {}
                for one, *cell, value in rows:
                    self._add(kept[table.name], (*cell,), value)  # type: ignore[arg-type]
                    if table is not ledger:
                        continue
                    minute = cell[0]
                    for rest, unit in (("hours+", HOUR), ("days+", DAY)):
                        if not at.covers(minute, one):
                            self._add(kept.setdefault(rest, {}), (minute - minute % unit, *cell[1:]), value)
        assert kept["ledger"] == only(self.counted, at.minutes_from)
        assert summed(kept["hours"], kept.get("hours+", {})) == only(self._by(HOUR), at.hours_from)
        assert summed(kept["days"], kept.get("days+", {})) == self._by(DAY)
        assert (await self.verify()).total == sum(self.counted.values())
        assert at.hours_from <= at.minutes_from <= at.hour
        return at

    async def verify(self) -> LedgerTotals:
        """Return the totals of `edgeproxy verify`."""
        return await verify_ledger(self.database)

    async def rows(self, table: sa.Table) -> int:
        """Return the number of rows of a table."""
        async with self.database.reading() as connection:
            return (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()

    async def all(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        async with self.database.reading() as connection:
            return [tuple(row) for row in await connection.execute(statement)]

    @staticmethod
    def _add(sums: dict[Cell, int], cell: Cell, value: int) -> None:
        sums[cell] = sums.get(cell, 0) + value

    def _by(self, unit: int) -> dict[Cell, int]:
        assert all(minute % MINUTE == 0 for minute, *_ in self.counted)
        found: dict[Cell, int] = {}
        for (minute, *what), value in self.counted.items():
            self._add(found, (minute - minute % unit, *what), value)  # type: ignore[arg-type]
        return found


def hurry(connection: Any, *_: object) -> None:
    """Switch off SQLite's waits for the disk, like the tests' PostgreSQL. These tests do not depend on it."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()


def forever() -> Kept:
    """Return a retention that keeps all rows."""
    return Kept(minutes=None, hours=None, batches=None)


def of_days(minutes: float | None, hours: float | None, batches: float | None) -> Kept:
    """Return a retention of these days, which may be very short."""
    seconds = {
        name: days and days * DAY for name, days in (("minutes", minutes), ("hours", hours), ("batches", batches))
    }
    return Kept.model_construct(**seconds)


def only(cells: dict[Cell, int], since: int) -> dict[Cell, int]:
    """Return the cells from a Unix second on."""
    return {cell: value for cell, value in cells.items() if cell[0] >= since}


def summed(*some: Iterable[Any]) -> dict[Cell, int]:
    """Return the sum of all of these."""
    counts: Counter[Cell] = Counter()
    for one in some:
        counts.update(one)
    return dict(counts)
