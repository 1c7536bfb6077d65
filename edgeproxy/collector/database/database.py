"""The collector's database: SQLite or PostgreSQL, from one code. The one file that knows which it is.

Writing goes over one connection at a time, `writing`, whose transactions see all that was committed before them.
Reading, `reading`, waits for nobody.
"""

import asyncio
import os
import sqlite3
from calendar import monthrange
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, date, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from edgeproxy.base.log import RateLimitedLog
from edgeproxy.collector.database import row_security
from edgeproxy.collector.database.book_text import BookCipher, set_book_cipher
from edgeproxy.collector.database.lenient_sqlite import LenientConnection
from edgeproxy.collector.database.ownership import (
    CREATE_PARTITION,
    DROP_PARTITION,
    HINT,
    Ownership,
    fetch_ownership,
    grant_rights,
    set_minutes_floor,
)
from edgeproxy.collector.database.postgresql import (
    JOB_STATEMENT_TIMEOUT,
    READERS_MAX,
    STATEMENT_TIMEOUT,
    Server,
)
from edgeproxy.collector.database.precedence import Precedence, counting_work, is_giving_way
from edgeproxy.collector.database.schema import (
    DAY,
    REVISION,
    days,
    dropped,
    edges,
    events,
    hours,
    late_hours,
    ledger,
    series,
    series_dimensions,
)
from edgeproxy.collector.database.statements import AnyColumn, AnySelect

LOCK_TIMEOUT = 30.0
"""Seconds that a transaction on SQLite waits for another process to end its own."""
POSTGRESQL_VERSION_MIN = 150000
"""The oldest PostgreSQL, as the server numbers it."""
PURGE_TIMEOUT_MS = 1000
"""Milliseconds for which the purge of deleted rows waits for others, who may wait for it meanwhile."""
PURGE_ATTEMPTS = 10
"""Attempts at the lock of a table on PostgreSQL in that time. To wait for the lock would let others wait behind it."""
DEAD_KEYS = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = '{}'::regclass"
KEY_TABLES = ("data_keys", "book_keys", "encryption_keys")
MIGRATION_LOCK = 7305_0001
"""The advisory lock of PostgreSQL under which tables are made and changed."""
ROLLUP_LOCK = 7305_0002
"""The lock of `rollup`. With a lock of its row, readers would pass by those who wait to change it."""
PARTITION_LOCK = 7305_0003
"""The lock under which partitions are made and dropped."""
PARTITION_LOCK_TIMEOUT = "500ms"
"""Longest wait for the lock of a partition that is to be dropped; later users of it wait as well."""

VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))
"""The table in which Alembic keeps the revision."""

LastStep = Callable[[AsyncConnection], Awaitable[None]]
LAST_STEPS = "last_steps"
"""The option of a connection with the steps at the end of its transaction (`add_last_step`)."""
WHOLE = "whole"
"""The option of a connection to SQLite that says whether its statements are one transaction."""

CONNECTION_ERRORS = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,
    asyncpg.InterfaceError,  # As the driver raises it while SQLAlchemy makes a connection ready.
    OSError,
    TimeoutError,
)
"""Errors of a database that is unavailable now, whatever the statement."""
LOCK_TIMEOUT_STATE = "55P03"
"""The SQLSTATE of a lock that was waited for too long."""
REFUSED_STATE = "22023"
"""The SQLSTATE by which DROP_PARTITION refuses a month that is kept."""
REFUSED_LOG_SECONDS = 3600.0
"""Seconds between two log lines about such a refusal."""
OVERFLOW_MESSAGES = ("ledger_most", "cannot store REAL value in INTEGER column", "out of range")
"""Error texts of too large a sum: the limit of a minute; beyond 63 bits, SQLite's strict tables, PostgreSQL."""


ROWS_REMEMBERED_MAX = 500_000
"""Rows of the ledger of which is remembered that they are there, some 100 bytes each."""
MINUTES_REMEMBERED = 3
"""The latest minutes of which this is remembered: edges are in one minute and the one before."""

Month = tuple[int, int]
"""Year and month, of UTC."""


class UnusableDatabaseError(Exception):
    """The database cannot be used: a sentence for who started the collector."""


class LedgerChangedError(OSError):
    """Somebody else than collectors has changed the ledger; what was remembered of it is forgotten."""


def open_owner_only(path: str | Path, flags: int) -> int:
    """Open a file, as an `opener`; a new one is for its owner alone: it says what customers do."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class Database:
    """An open database with the tables of `schema.py`, made by `connect`."""

    def __init__(self, url: str) -> None:
        given = make_url(url)
        self.name = given.render_as_string(hide_password=True)
        """The URL, without its password."""
        self.is_sqlite = given.get_backend_name() == "sqlite"
        self.has_partitions = not self.is_sqlite
        """Whether the ledger has a partition for each month (`drop_month`)."""
        self._given = given
        self._add_statements = {
            table.name: self._build_add_statement(table) for table in (ledger, hours, days, dropped)
        }
        self.file = Path(given.database or "") if self.is_sqlite else None
        """The file of a database of SQLite."""
        self.ownership: Ownership | None = None
        """Owner of the tables; None before it is known, and on SQLite."""
        self._has_written = False
        self.row_security_gap: str | None = None
        """The reason why row-level security does not hold transactions that serve one customer; None where it does."""
        self.precedence = Precedence()
        """Before whom jobs give way: before each statement that reads, and each transaction that writes."""
        self._rare_log = RateLimitedLog(REFUSED_LOG_SECONDS)
        self._months: set[Month] = set()
        """Months that have a partition, as far as is known."""
        self._present: dict[int, set[int]] = {}
        """The series that have a row in a minute, as far as is known; only of the latest minutes. PostgreSQL only."""
        if self.is_sqlite:
            self._writer = _create_sqlite_engine(given, "BEGIN IMMEDIATE", 1)
            self._reader = _create_sqlite_engine(given, "BEGIN", READERS_MAX)
            self._job_reader = _create_sqlite_engine(given, "BEGIN", READERS_MAX, patience=JOB_STATEMENT_TIMEOUT)
        else:
            self._server = Server(given)
            self.name = self._server.name
            self._writer, self._reader, self._job_reader, self.locks = self._server.create_engines()
            """Connections that hold locks of jobs (single_runner.py), of PostgreSQL alone."""
        self._engines = (self._writer, self._reader, self._job_reader)
        event.listen(self._job_reader.sync_engine, "before_cursor_execute", self._give_way)

    @classmethod
    async def connect(cls, url: str, *, as_it_is: bool = False) -> "Database":
        """Open the database, make its tables or bring them up to date; raises UnusableDatabaseError.

        With `as_it_is` it must be there and up to date already, and is not changed. The same holds for tables of
        PostgreSQL that belong to another role than the user (ownership.py).
        """
        database = cls(url)
        if as_it_is and database.is_sqlite and not database._exists():
            raise UnusableDatabaseError(f"{database.name} is not there")
        try:
            await (database._check() if as_it_is else database._migrate())
        except BaseException as error:
            await database.close()
            if isinstance(error, UnusableDatabaseError):
                raise
            if isinstance(error, row_security.HiddenRowsError):
                raise UnusableDatabaseError(f"{database.name} cannot be used: {error}") from error
            if isinstance(error, Exception):
                raise UnusableDatabaseError(f"{database.name} cannot be used: {format_reason(error)}") from error
            raise
        return database

    async def close(self) -> None:
        """End all connections. On SQLite nothing that was deleted is left in a file by then, unless others use it."""
        for engine in self._engines[1:]:
            await engine.dispose()
        if self.is_sqlite and self._has_written:  # The last connection would do it too, had none been lost.
            with suppress(sa.exc.SQLAlchemyError, OSError):
                await self.purge_deleted()
        await self._writer.dispose()
        if not self.is_sqlite:
            await self.locks.dispose()

    async def _migrate(self) -> None:
        if self.is_sqlite:
            assert self._given.database is not None
            file = Path(self._given.database)
            file.parent.mkdir(parents=True, exist_ok=True)
            # What SQLite writes beside it gets the same mode.
            os.close(open_owner_only(file, os.O_RDWR | os.O_CREAT))
        async with self._migrating() as connection:
            if not self.is_sqlite:
                version = (await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()
                if int(version) < POSTGRESQL_VERSION_MIN:
                    raise UnusableDatabaseError(
                        f"{self.name} is PostgreSQL {int(version) // 10000}, and 15 is the oldest that will do"
                    )
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                self.ownership = await fetch_ownership(connection)
                if self.ownership.obstacle is not None:
                    raise UnusableDatabaseError(f"{self.name} cannot be used: {self.ownership.obstacle}")
            if self.ownership is not None and not self.ownership.has_ownership:
                await connection.run_sync(self._check_revision)
            elif await connection.run_sync(_fetch_revision) != REVISION:
                from edgeproxy.collector.database.migrate import LaterRevisionError, upgrade

                try:
                    await connection.run_sync(upgrade)
                except LaterRevisionError as error:
                    raise UnusableDatabaseError(f"{self.name} was made by a later version: {error}") from error
        await self.enforce_row_security()

    @asynccontextmanager
    async def _migrating(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes, whose statements may take any time: an index of a million rows takes a minute."""
        engine = self._writer if self.is_sqlite else self._server.create_engine(1, patience=None)
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            if engine is not self._writer:
                await engine.dispose()

    async def enforce_row_security(self) -> None:
        """Bring row-level security up to date, as far as the user may, and note what is missing: `row_security_gap`.

        Raises HiddenRowsError.
        """
        if not self.is_sqlite:
            self.row_security_gap = await row_security.enforce(self._writer.begin)

    async def grant_rights(self, login: str) -> None:
        """Give the login of a collector on PostgreSQL its rights to these tables, which the user owns."""
        async with self._writer.begin() as connection:
            await grant_rights(connection, login)

    async def set_minutes_floor(self, seconds: float | None) -> None:
        """Have such a login drop no minutes that are younger than this; None: none at all."""
        async with self._writer.begin() as connection:
            await set_minutes_floor(connection, seconds)

    def set_option(self, name: str, value: object) -> None:
        """Give all connections from now on an option, for what works on them; no statement depends on it."""
        for engine in self._engines:
            engine.sync_engine.update_execution_options(**{name: value})

    def set_book_cipher(self, cipher: BookCipher) -> None:
        """Have all statements from now on seal and open text of the books by this cipher."""
        for engine in self._engines:
            set_book_cipher(engine.sync_engine, cipher)

    def _exists(self) -> bool:
        return os.path.exists(self._given.database or "")

    async def _check(self) -> None:
        """Check that this version can use the database as it is; raises UnusableDatabaseError and HiddenRowsError."""
        async with self._reader.connect() as connection:
            if not self.is_sqlite:
                self.ownership = await fetch_ownership(connection)
            await connection.run_sync(self._check_revision)
            if not self.is_sqlite:
                await row_security.must_see_rows(connection)
                self.row_security_gap = await row_security.find_gap(connection)

    def _check_revision(self, connection: sa.Connection) -> None:
        """Raise UnusableDatabaseError where the tables are of another revision than those of this version."""
        revision = _fetch_revision(connection)
        if revision != REVISION:
            owns = self.ownership is None or self.ownership.has_ownership
            hint = "run `edgeproxy database migrate`, or start the collector," if owns else HINT
            raise UnusableDatabaseError(f"{self.name} is of revision {revision}, not {REVISION}: {hint} first")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end, and rolled back where anything is raised.

        It serves one customer alone where `row_security.serving` says so, as those of `reading` do.
        """
        await self.precedence.give_way()
        self._has_written = True
        try:
            async with self._writer.begin() as connection:
                with counting_work():
                    if (customer := self._served_customer()) is not None:
                        await row_security.serve(connection, customer)
                    last_steps: list[LastStep] = []
                    assert connection.sync_connection is not None
                    connection.sync_connection.execution_options(**{LAST_STEPS: last_steps})
                    yield connection
                    for step in last_steps:
                        await step(connection)
        except BaseException:
            self._months.clear()  # Some may have been made by what is rolled back.
            self._present.clear()
            raise

    @asynccontextmanager
    async def reading(self, *, whole: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection that only reads; with `whole`, all that it reads is of one moment, else each statement is."""
        engine = self._job_reader if is_giving_way() else self._reader
        async with engine.connect() as connection:
            with counting_work():
                if self.is_sqlite:
                    await connection.execution_options(**{WHOLE: whole})
                else:
                    customer = self._served_customer()
                    # Whom a transaction serves is forgotten with its end, so that there must be one.
                    # Settings of connections through a pooler are of a transaction, too.
                    is_single = customer is None and not self._server.is_pooled
                    each = "AUTOCOMMIT" if is_single else "READ COMMITTED"
                    await connection.execution_options(isolation_level="REPEATABLE READ" if whole else each)
                    if customer is not None:
                        await row_security.serve(connection, customer)
                yield connection  # A transaction begins with the first statement, and ends with the connection's use.

    def _give_way(self, *_: object) -> None:
        """Let a statement of a job wait for who waits for a page."""
        if self.precedence.is_due():
            await_only(self.precedence.give_way())

    def _served_customer(self) -> str | None:
        """Return the customer whom a transaction that begins now serves alone, by row-level security."""
        return None if self.is_sqlite or self.row_security_gap else row_security.served_customer()

    async def purge_deleted(self, *, has_erased: bool = False) -> bool:
        """Leave nothing of deleted rows in files; False where somebody else's transaction is in the way for now.

        SQLite overwrites deleted rows (`secure_delete`), in the write-ahead log at first, which is emptied here.
        PostgreSQL leaves them where they were: of keys, without which what they encrypted is lost, it writes the files
        anew, where the user owns them and rows were deleted: of data keys for sure with `has_erased`.
        """
        if self.is_sqlite:
            async with self._writer.connect() as connection:
                await connection.execution_options(**{WHOLE: False})  # No transaction: it would be in the way itself.
                await connection.exec_driver_sql(f"PRAGMA busy_timeout={PURGE_TIMEOUT_MS}")
                try:
                    busy, *_ = (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()
                finally:
                    await connection.exec_driver_sql(f"PRAGMA busy_timeout={LOCK_TIMEOUT * 1000:.0f}")
            return not busy
        if self.ownership is None or not self.ownership.has_ownership:
            return True
        engine = self._server.create_engine(1, patience=None)
        try:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                for table in KEY_TABLES:
                    is_due = has_erased and table == "data_keys"
                    is_due = is_due or bool((await connection.exec_driver_sql(DEAD_KEYS.format(table))).scalar_one())
                    if is_due and not await _rewrite_table(connection, table):
                        return False
        finally:
            await engine.dispose()
        return True

    def copy(self, to: Path) -> int:
        """Write what is in a database of SQLite at this moment to a new file, whoever writes meanwhile; its bytes.

        It is there whole or not at all. Raises sqlite3.Error and OSError.
        """
        part = to.with_name(f"{to.name}.part")
        part.unlink(missing_ok=True)
        try:
            source = sqlite3.connect(self._given.database or "", timeout=LOCK_TIMEOUT)
            os.close(open_owner_only(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            with closing(source), closing(sqlite3.connect(part)) as target:
                source.backup(target)  # In one step: one that rests in between begins anew after each commit.
            with part.open("rb") as copied:
                os.fsync(copied.fileno())
            os.link(part, to)  # Where there is one by now, it stays.
        finally:
            part.unlink(missing_ok=True)
        return to.stat().st_size

    def beginning(self, column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
        """Return whether a text of printable ASCII begins with another one, by an index in the order of the
        characters.
        """
        plain = self.by_character(column)
        return (plain >= text) & (plain < f"{text}\x7f")

    def by_character(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """Return a text in the order of its characters, which is that of the index by which `beginning` finds it."""
        return column if self.is_sqlite else sa.collate(column, "C")

    async def insert_edges(self, connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
        """Make rows of edges that are new, unless another collector has made them meanwhile."""
        await connection.execute(self._insert(edges).on_conflict_do_nothing(), list(rows))

    async def insert_series(self, connection: AsyncConnection, keys: Sequence[Sequence[str]]) -> None:
        """Make series that are new: [edge, region, customer, meter, route, dimensions] each."""
        names = [column.name for column in series.columns if column.name != "id"]
        insert = self._insert(series)
        rows: Any = [dict(zip(names, one, strict=True)) for one in keys]
        if not self.is_sqlite:
            lists = {name: sa.bindparam(name, type_=ARRAY(sa.Text())) for name in names}
            insert = insert.from_select(names, _unnest(lists))
            rows = {name: [row[name] for row in rows] for name in names}
        await connection.execute(insert.on_conflict_do_nothing(), rows)

    async def insert_series_dimensions(self, connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
        """Make rows of the dimensions of series, {name, series, value} each, unless another collector has."""
        await connection.execute(self._insert(series_dimensions).on_conflict_do_nothing(), list(rows))

    async def record_late_hours(self, connection: AsyncConnection, hours: Iterable[tuple[str, int]]) -> None:
        """Count once more that these hours of edges have grown after they were closed."""
        rows = [{"edge": edge, "hour": hour, "times": 1} for edge, hour in sorted(hours)]
        if rows:
            statement = self._insert(late_hours).on_conflict_do_update(
                index_elements=list(late_hours.primary_key), set_={"times": late_hours.c.times + 1}
            )
            await connection.execute(statement, rows)

    async def insert_events(
        self, connection: AsyncConnection, rows: Sequence[Sequence[object]]
    ) -> set[tuple[str, str]]:
        """Make rows of events, in the order of the table's columns; return source and id of those that were there."""
        if not self.is_sqlite:
            columns = zip(events.columns.keys(), zip(*rows, strict=True), strict=True)
            texts = {name: _format_json_array(values) for name, values in columns}
            return {(source, number) for source, number in await connection.execute(INSERT_EVENTS, texts)}
        # Nobody else writes meanwhile: to look for those that are there first is cheaper than to be told.
        identities = orjson.dumps([row[:2] for row in rows]).decode()
        there = {(source, number) for source, number in await connection.execute(SELECT_EVENTS, {"sent": identities})}
        if new := [row for row in rows if tuple(row[:2]) not in there] if there else rows:
            # Past SQLAlchemy, as in `add`.
            places = ", ".join("?" * len(events.columns))
            await connection.exec_driver_sql(f"INSERT INTO {events.name} VALUES ({places})", list(new))
        return there

    async def hold(self, connection: AsyncConnection, name: str) -> None:
        """Lock a name against other holders until the transaction ends."""
        if not self.is_sqlite:  # There only one writes.
            number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))

    async def lock_rollup(self, connection: AsyncConnection, *, alone: bool = False) -> None:
        """Lock rolled-up rows against changes until the transaction ends; with `alone`, against counting too."""
        if not self.is_sqlite:  # There only one writes.
            lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
            await connection.execute(sa.select(lock(ROLLUP_LOCK)))

    async def add(
        self, connection: AsyncConnection, table: sa.Table, increments: Mapping[int, Mapping[int, int]]
    ) -> None:
        """Add to a table of sums: by how much each series has grown in each minute (hour, day), then by series."""
        rows = [(one, time, value) for time, values in increments.items() for one, value in values.items()]
        if not rows:
            return
        if self.is_sqlite:
            # Past SQLAlchemy, which would look at every value of every row once more: that takes half of the time.
            await connection.exec_driver_sql(self._add_statements[table.name], rows)
            return
        if table is ledger:
            await self.create_partitions(connection, increments)
            for minute, values in increments.items():
                rows = [
                    (one, minute, value)
                    for one, value in (await self._update_present(connection, minute, values)).items()
                ]
                await self._upsert(connection, table, rows)
                self._remember_present(minute, values)
            return
        await self._upsert(connection, table, rows)

    async def _upsert(self, connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[int, int, int]]) -> None:
        """Add these rows to a table of sums of PostgreSQL, whether they are there or not."""
        if rows:
            columns = map(_format_array, zip(*rows, strict=True))
            await connection.execute(
                self._add_statements[table.name], dict(zip(table.columns.keys(), columns, strict=True))
            )

    async def _update_present(
        self, connection: AsyncConnection, minute: int, values: Mapping[int, int]
    ) -> Mapping[int, int]:
        """Let those rows of a minute grow that are known to be there, which takes three quarters of the CPU that it
        takes to look whether they are; the rest is returned.
        """
        there = self._present.get(minute, set())
        old = {one: value for one, value in values.items() if one in there}
        if old:
            own = {"of": minute, "those": _format_array(old), "by": _format_array(old.values())}
            if (await connection.execute(UPDATE_PRESENT, own)).rowcount != len(old):
                # Another database than a moment ago: a restored one, maybe. Who sends it again finds it as it is now.
                raise LedgerChangedError(f"the ledger lacks rows of the minute {minute} that it had")
        return {one: value for one, value in values.items() if one not in there} if old else values

    def _remember_present(self, minute: int, series: Iterable[int]) -> None:
        """These series have a row in this minute."""
        self._present.setdefault(minute, set()).update(series)
        while len(self._present) > MINUTES_REMEMBERED or sum(map(len, self._present.values())) > ROWS_REMEMBERED_MAX:
            del self._present[min(self._present)]

    def _build_add_statement(self, table: sa.Table) -> Any:
        """Build the statement that adds to a table of sums."""
        insert = self._insert(table)
        names = table.columns.keys()
        if not self.is_sqlite:
            texts = {name: sa.cast(sa.bindparam(name, type_=sa.Text()), ARRAY(sa.BigInteger())) for name in names}
            insert = insert.from_select(names, _unnest(texts))
        statement = insert.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={"value": table.c.value + insert.excluded.value},
        )
        if not self.is_sqlite:
            return statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
        assert compiled.positiontup == names
        return str(compiled)

    async def create_partitions(self, connection: AsyncConnection, minutes: Iterable[int]) -> None:
        """Make the partitions of these minutes that are not there yet."""
        needed = {_month_of(minute) for minute in minutes}
        if needed <= self._months:
            return
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(PARTITION_LOCK)))
        there = await _fetch_partitions(connection)
        for month in sorted(needed - there):
            await connection.exec_driver_sql(f"SELECT {CREATE_PARTITION}($1)", (date(*month, 1),))
        self._months = there | needed

    def droppable(self, second: int) -> int:
        """Return the Unix second before which minutes can be dropped, where those before `second` are no longer
        kept.
        """
        return _month_span(_month_of(second))[0] if self.has_partitions else second - second % DAY

    async def drop_month(self, before: int) -> bool:
        """Drop the oldest partition of the ledger that ends there or earlier.

        False where there is none, the owner of the tables keeps it, or somebody uses the ledger, for whom nobody else
        shall wait.
        """
        async with self.writing() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(PARTITION_LOCK)))
            old = sorted(month for month in await _fetch_partitions(connection) if _month_span(month)[1] <= before)
            if not old:
                return False
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PARTITION_LOCK_TIMEOUT}'")
            try:
                await connection.exec_driver_sql(f"SELECT {DROP_PARTITION}($1)", (date(*old[0], 1),))
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in (LOCK_TIMEOUT_STATE, REFUSED_STATE):
                    raise
                if state == REFUSED_STATE:
                    self._rare_log.error("minutes are not dropped", format_reason(error), hint=HINT)
                await connection.rollback()
                return False
            self._months.discard(old[0])
        return True

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


async def _rewrite_table(connection: AsyncConnection, table: str) -> bool:
    """Write the file of a table anew, without deleted rows; False where somebody else uses the table.

    A session's `lock_timeout` would reach another session through a pooler.
    """
    select_file = f"SELECT pg_relation_filenode('{table}')"
    before = (await connection.exec_driver_sql(select_file)).scalar_one()
    for _ in range(PURGE_ATTEMPTS):
        await connection.exec_driver_sql(f"VACUUM (FULL, SKIP_LOCKED) {table}")
        if (await connection.exec_driver_sql(select_file)).scalar_one() != before:
            await connection.exec_driver_sql(
                f"VACUUM (SKIP_LOCKED) {table}"
            )  # Which counts dead rows, as FULL does not.
            return True
        await asyncio.sleep(PURGE_TIMEOUT_MS / 1000 / PURGE_ATTEMPTS)
    return False


async def _fetch_partitions(connection: AsyncConnection) -> set[Month]:
    """Return the months that have a partition."""
    names = await connection.exec_driver_sql(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'ledger'::regclass"
    )
    return {(int(year), int(month)) for _, year, month in (name.split("_") for name in names.scalars())}


def _month_of(second: int) -> Month:
    """Return the month of UTC that a Unix second is in."""
    at = datetime.fromtimestamp(second, UTC)
    return at.year, at.month


def _month_span(month: Month) -> tuple[int, int]:
    """Return the Unix second at which a month begins, and that at which the next one does."""
    begin = int(datetime(*month, 1, tzinfo=UTC).timestamp())
    return begin, begin + monthrange(*month)[1] * DAY


def build_insert(connection: AsyncConnection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Begin to insert rows by a statement of the connection's own dialect, which can say what becomes of conflicts."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def build_insert_new(connection: AsyncConnection, table: sa.Table, *names: str) -> Any:
    """Begin to insert rows, passing over those whose columns of these names another row has already."""
    return build_insert(connection, table).on_conflict_do_nothing(index_elements=names)


def build_upsert(connection: AsyncConnection, table: sa.Table, row: Mapping[str, object], *names: str) -> sa.Executable:
    """Build the statement that inserts a row, in the place of one whose columns of these names are the same."""
    return build_insert(connection, table).values(row).on_conflict_do_update(index_elements=names, set_=row)


def add_last_step(connection: AsyncConnection, step: LastStep) -> None:
    """Have a step done when a transaction of `Database.writing` ends, before it is committed: one that takes a lock
    that all others want as well. Steps are done in their order."""
    assert connection.sync_connection is not None
    connection.sync_connection.get_execution_options()[LAST_STEPS].append(step)


def is_overflow(error: Exception) -> bool:
    """Return whether the database could not hold a number."""
    return isinstance(error, sa.exc.DBAPIError) and any(message in str(error.orig) for message in OVERFLOW_MESSAGES)


def format_reason(error: Exception) -> str:
    """Return the message of a driver's error, in one line."""
    driver_error = getattr(error, "orig", None) or error
    return str(driver_error).partition("\n")[0].rpartition("'>: ")[2] or type(driver_error).__name__


def _unnest(arrays: Mapping[str, AnyColumn]) -> AnySelect:
    """Return the rows that arrays make, one for each column: one statement for any number of rows."""
    made = sa.func.unnest(*arrays.values()).table_valued(*arrays)
    return sa.select(*made.render_derived().columns)


def _format_array(numbers: Iterable[int]) -> str:
    """Return an array for PostgreSQL, as text: the driver looks at each number of a list three times, which takes
    longer than all the rest.
    """
    return "{" + ",".join(map(str, numbers)) + "}"


def _build_grow_statement() -> sa.Update:
    """Build the statement that lets rows of one minute grow which are there, on PostgreSQL."""
    texts = [sa.cast(sa.bindparam(name, type_=sa.Text()), ARRAY(sa.BigInteger())) for name in ("those", "by")]
    grown = sa.func.unnest(*texts).table_valued("series", "value", name="grown").render_derived()
    return (
        sa.update(ledger)
        # The minute as one value, by which the planner finds the partition.
        .where(ledger.c.minute == sa.bindparam("of"), ledger.c.series == grown.c.series)
        .values(value=ledger.c.value + grown.c.value)
    )


UPDATE_PRESENT = _build_grow_statement()


def _format_json_array(values: Iterable[str | int | bool | None]) -> str:
    """Format an array of printable ASCII texts, which PostgreSQL writes as JSON does, and of NULLs."""
    return "{" + orjson.dumps([int(one) if one is True or one is False else one for one in values])[1:-1].decode() + "}"


def _build_insert_events() -> AnySelect:
    """Build the statement that makes rows of events and says which were there, on PostgreSQL."""
    texts = {one.name: sa.cast(sa.bindparam(one.name, type_=sa.Text()), ARRAY(one.type)) for one in events.columns}
    sent = _unnest(texts).cte("sent")
    insert = postgresql.insert(events).from_select(list(texts), sa.select(sent)).on_conflict_do_nothing()
    made = insert.returning(events.c.source, events.c.id).cte("made")
    is_made = sa.exists().where(made.c.source == sent.c.source, made.c.id == sent.c.id)
    return sa.select(sent.c.source, sent.c.id).where(~is_made)


def _build_select_events() -> AnySelect:
    """Build the statement that says which of some events are there, on SQLite."""
    sent = sa.func.json_each(sa.bindparam("sent", type_=sa.Text())).table_valued("value", name="sent")
    same = [
        column == sa.func.json_extract(sent.c.value, f"$[{place}]")
        for place, column in enumerate((events.c.source, events.c.id))
    ]
    return sa.select(events.c.source, events.c.id).select_from(sent).join(events, sa.and_(*same))


INSERT_EVENTS = _build_insert_events()
SELECT_EVENTS = _build_select_events()


def _create_sqlite_engine(
    url: URL, begin: str, connections: int, *, patience: float = STATEMENT_TIMEOUT
) -> AsyncEngine:
    """Connections to a file. `begin` begins a transaction: one that reads and then writes must not wait in between.

    `patience`: the seconds of which half are waited for a connection, as with a server.
    """
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        connect_args={"timeout": LOCK_TIMEOUT, "factory": LenientConnection},
        pool_size=connections,
        max_overflow=0,
        pool_timeout=patience / 2,
        hide_parameters=True,  # They may be about people, and messages of errors are logged.
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # So that the driver begins no transaction of its own.
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",  # What is erased is overwritten, and not in pages that nobody reads.
            f"query_only={int(begin == 'BEGIN')}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begins(connection: sa.Connection) -> None:
        if connection.get_execution_options().get(WHOLE, True):
            connection.exec_driver_sql(begin)

    return engine


def _fetch_revision(connection: sa.Connection) -> str | None:
    """Return the revision of the tables; None where there are none yet."""
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    return connection.execute(sa.select(VERSION.c.version_num)).scalar_one_or_none()
