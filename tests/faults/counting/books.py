"""The collector without sockets: its real database, queue and verdicts in the test's event loop.

It can die before or after a commit, restart on its database, and be restored from an earlier copy of the database.
"""

import asyncio
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.api.edges import GAP_SEQ_MAX, answer_outcome
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import batches, ledger, series
from edgeproxy.collector.ledger import edges
from edgeproxy.collector.ledger.batch_writer import BatchWriter, DatabaseUnavailableError
from edgeproxy.collector.ledger.chain import Shipper, Verdict
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.queries import fetch_usage, parse_query
from edgeproxy.collector.ledger.received_batch import decode_batch, parse_headers
from edgeproxy.collector.ledger.verification import LedgerTotals, verify_ledger
from edgeproxy.collector.metrics import Metrics

Name = tuple[str, str, str]
"""Customer, meter, route."""
Said = tuple[int, bytes]
"""The status and the body of an answer."""


class Died(BaseException):
    """The simulated death of the process."""


class Mortal(Database):
    """A database whose next transaction ends the process. `dies` is `before` or `after` the commit, or empty."""

    dies = ""

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        async with super().writing() as connection:
            yield connection
            if self.dies == "before":
                raise Died
        if self.dies == "after":
            raise Died


class Books:
    """A collector with a database of its own. `take` handles a request."""

    def __init__(self, folder: Path, empty: Path) -> None:
        """`empty` is a database with empty tables, made by `make_empty`."""
        folder.mkdir(parents=True)
        self._file = folder / "ledger.db"
        shutil.copy(empty, self._file)
        self._copies = folder / "copy.db"
        self._has_copy = False
        self.dies = ""
        self._up: tuple[Mortal, BatchWriter] | None = None
        self._tasks = Tasks()

    async def _start(self) -> tuple[Mortal, BatchWriter]:
        if self._up is None:
            database = await Mortal.connect(f"sqlite:///{self._file}")
            assert isinstance(database, Mortal)
            metrics = Metrics()
            ingest = BatchWriter(database, KnownNames((), (), metrics), metrics)
            self._settling = self._tasks.start("ingest", ingest.run())
            self._up = database, ingest
        return self._up

    async def take(self, fields: dict[str, str], body: bytes, coding: str = "identity") -> Said:
        """Settle a batch with these header fields and return the answer. Raises OSError if the collector dies."""
        database, ingest = await self._start()
        database.dies = self.dies
        headers = parse_headers(fields)
        if isinstance(headers, str):
            return 422, b"{}"
        outcome = self._tasks.start(
            "settle", ingest.settle_batch(decode_batch(headers, body, coding), Shipper("edges"))
        )
        await asyncio.wait((outcome, self._settling), return_when=asyncio.FIRST_COMPLETED)
        if not outcome.done():
            outcome.cancel()
            raise ConnectionResetError("the collector died")
        try:
            result = outcome.result()
        except DatabaseUnavailableError:
            return 503, b"{}"
        if result.verdict is Verdict.UNANNOUNCED:
            # An admin allows the gap.
            async with database.writing() as connection:
                assert await edges.allow_initial_gap(connection, database, headers.edge, GAP_SEQ_MAX) == 0
            return 403, b"{}"
        answer = answer_outcome(result)
        assert isinstance(answer.body, bytes)
        return answer.status, answer.body

    async def revive(self) -> None:
        """Prepare for a restart if the collector has died."""
        if self._up is not None and self._settling.done():
            self.dies = ""
            await self.die()

    async def die(self) -> None:
        """End the collector at once. `take` starts a new one."""
        if self._up is not None:
            database, _ = self._up
            self._up = None
            await self._tasks.cancel()
            await database.close()

    async def copy(self) -> None:
        """Make a backup of the database."""
        await self._start()
        with closing(sqlite3.connect(self._file)) as source, closing(sqlite3.connect(self._copies)) as target:
            source.backup(target)
        self._has_copy = True

    async def restore(self) -> bool:
        """Go back to the last backup, if there is one."""
        if not self._has_copy:
            return False
        await self.die()
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._file.with_name(self._file.name + suffix).unlink()
        self._file.write_bytes(self._copies.read_bytes())
        return True

    # ---- contents of the database

    async def verify(self) -> LedgerTotals:
        """Verify the ledger as `edgeproxy verify` does, and return its totals."""
        database, _ = await self._start()
        return await verify_ledger(database)

    async def counted(self) -> dict[str, Counter[Name]]:
        """Return the sums of the ledger by edge."""
        database, _ = await self._start()
        names = series.c
        statement = (
            sa.select(names.edge, names.customer, names.meter, names.route, sa.func.sum(ledger.c.value))
            .select_from(ledger.join(series, series.c.id == ledger.c.series))
            .group_by(names.edge, names.customer, names.meter, names.route)
        )
        found: dict[str, Counter[Name]] = {}
        async with database.reading() as connection:
            for edge, customer, meter, route, value in await connection.execute(statement):
                found.setdefault(edge, Counter())[customer, meter, route] = value
        return found

    async def settled(self) -> dict[str, dict[int, tuple[int, str, str]]]:
        """Return the batches of each edge by number: the last number covered, the hash and the state."""
        database, _ = await self._start()
        found: dict[str, dict[int, tuple[int, str, str]]] = {}
        columns = batches.c
        async with database.reading() as connection:
            statement = sa.select(columns.edge, columns.seq, columns.last, columns.hash, columns.state)
            for edge, seq, last, digest, state in await connection.execute(statement):
                found.setdefault(edge, {})[seq] = last, digest, state
        return found

    async def total(self, by: str) -> int:
        """Return the total of `/v1/usage` over all times with this grouping."""
        database, _ = await self._start()
        async with database.reading() as connection:
            found = await fetch_usage(connection, parse_query({"from": "1970-01-01", "by": by}, time.time()))
        total: int = found["total"]
        assert total == sum(row["value"] for row in found["rows"])
        return total


async def make_empty(file: Path) -> Path:
    """Create a database with empty tables. Creation takes half a second, so tests copy the file instead."""
    database = await Database.connect(f"sqlite:///{file}")
    await database.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file
