"""The collector's database, SQLite or PostgreSQL. Only this file, `ledger_sql.py` and
`events/event_rows.py` know the difference.

Writers use one connection at a time (`writing`). Each transaction sees everything that was committed before it. Readers
(`reading`) never wait for writers.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from edgeproxy.base.log import RateLimitedLog
from edgeproxy.collector.database import row_security
from edgeproxy.collector.database.book_text import BookCipher, set_book_cipher
from edgeproxy.collector.database.ledger_sql import LedgerSql
from edgeproxy.collector.database.lenient_sqlite import LenientConnection
from edgeproxy.collector.database.ownership import (
    HINT,
    Ownership,
    fetch_ownership,
    grant_rights,
    set_minutes_floor,
)
from edgeproxy.collector.database.postgresql import (
    JOB_STATEMENT_TIMEOUT,
    LOST,
    READERS_MAX,
    STATEMENT_TIMEOUT,
    Server,
)
from edgeproxy.collector.database.precedence import Precedence, counting_work, is_giving_way
from edgeproxy.collector.database.schema import (
    REVISION,
)
from edgeproxy.collector.database.sqlite_driver import DRIVER

LOCK_TIMEOUT = 30.0
"""Seconds that a transaction on SQLite waits for another process to end its transaction."""
POSTGRESQL_VERSION_MIN = 150000
"""The oldest supported PostgreSQL, in the server's numbering."""
PURGE_TIMEOUT_MS = 1000
"""Milliseconds that the purge of deleted rows waits for other transactions. New transactions may queue behind it."""
PURGE_ATTEMPTS = 10
"""Attempts at the lock of a table on PostgreSQL in that time. Waiting for the lock would make others queue behind it.
"""
DEAD_KEYS = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = '{}'::regclass"
KEY_TABLES = ("data_keys", "book_keys", "encryption_keys")
MIGRATION_LOCK = 7305_0001
"""PostgreSQL's advisory lock for creating and changing tables."""

VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))
"""Alembic's table with the revision."""

LastStep = Callable[[AsyncConnection], Awaitable[None]]
LAST_STEPS = "last_steps"
"""The connection option that lists the steps to run at the end of its transaction (`add_last_step`)."""
WHOLE = "whole"
"""The option of a SQLite connection that makes all its statements one transaction."""

CONNECTION_ERRORS = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,
    asyncpg.InterfaceError,  # The driver raises it while SQLAlchemy sets up a connection.
    OSError,
    TimeoutError,
)
"""Errors of a database that is unavailable now, whatever the statement."""
REFUSED_LOG_SECONDS = 3600.0
"""Seconds between two log lines about such a refusal."""
OVERFLOW_MESSAGES = ("ledger_most", "cannot store REAL value in INTEGER column", "out of range")
"""Error texts of a sum that is too large: the limit of a minute, SQLite's strict tables, 63 bits on PostgreSQL."""


class UnusableDatabaseError(Exception):
    """The database cannot be used. The message is a sentence for the person who started the collector."""


def open_owner_only(path: str | Path, flags: int) -> int:
    """Open a file, as an `opener`. A new file is readable by its owner only, because it shows what customers do."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class Database:
    """An open database with the tables of `schema.py`. `connect` creates it."""

    def __init__(self, url: str) -> None:
        given = make_url(url)
        self.name = given.render_as_string(hide_password=True)
        """The URL without its password."""
        self.is_sqlite = given.get_backend_name() == "sqlite"
        self._given = given
        self.file = Path(given.database or "") if self.is_sqlite else None
        """The file of a SQLite database."""
        self.ownership: Ownership | None = None
        """Owner of the tables; None until it is looked up, and on SQLite."""
        self._has_written = False
        self.row_security_gap: str | None = None
        """The reason why row-level security cannot restrict transactions to one customer, or None if it can."""
        self.precedence = Precedence()
        """Decides whether jobs wait for pages, before each statement that reads and each transaction that writes."""
        self._rare_log = RateLimitedLog(REFUSED_LOG_SECONDS)
        self.ledger = LedgerSql(self.writing, self._report_refusal, is_sqlite=self.is_sqlite)
        """The statements of the ledger."""
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
        """Open the database and create or migrate its tables. Raises UnusableDatabaseError.

        With `as_it_is` the database must exist at the current revision and is not changed. This also holds for
        PostgreSQL tables that belong to a role other than the user (ownership.py).
        """
        database = cls(url)
        if as_it_is and database.is_sqlite and not database._exists():
            raise UnusableDatabaseError(f"{database.name} is not there: `edgeproxy database migrate` creates it")
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

    def has_new_password(self, url: str) -> bool:
        """Return True if a URL differs from this database's in its password alone."""
        new = make_url(url)
        return new.password != self._given.password and new._replace(password=self._given.password) == self._given

    def uses(self, url: str) -> bool:
        """Return True if new connections use this URL."""
        return make_url(url) == self._given

    async def check_password(self, url: str) -> None:
        """Open a connection with the password of this URL. Raises UnusableDatabaseError."""
        try:
            await Server(make_url(url)).check_login()
        except LOST as error:
            raise UnusableDatabaseError(f"database: the new password does not do: {format_reason(error)}") from error

    def use_password(self, url: str) -> None:
        """Use the password of this URL for new connections. The others end before their next use."""
        self._given = make_url(url)
        self._server.use_password(self._given.password)

    async def close(self) -> None:
        """Close all connections. On SQLite no deleted data is left in a file then, unless another process uses it."""
        for engine in self._engines[1:]:
            await engine.dispose()
        if self.is_sqlite and self._has_written:  # The last connection does this too, unless it was lost.
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
            # SQLite gives its write-ahead log the file's mode.
            os.close(open_owner_only(file, os.O_RDWR | os.O_CREAT))
        async with self._writer.begin() as connection:
            if not self.is_sqlite:
                await self._check_server(connection)
            if self.ownership is not None and not self.ownership.has_ownership:
                await connection.run_sync(self._check_revision)
            is_current = await connection.run_sync(_fetch_revision) == REVISION
        if not is_current:
            await self._upgrade()
        await self.enforce_row_security()

    async def _check_server(self, connection: AsyncConnection) -> None:
        """Look up the version of PostgreSQL and the owner of the tables. Raises UnusableDatabaseError."""
        version = (await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()
        if int(version) < POSTGRESQL_VERSION_MIN:
            raise UnusableDatabaseError(
                f"{self.name} is PostgreSQL {int(version) // 10000}, and 15 is the oldest that will do"
            )
        self.ownership = await fetch_ownership(connection)
        if self.ownership.obstacle is not None:
            raise UnusableDatabaseError(f"{self.name} cannot be used: {self.ownership.obstacle}")

    async def _upgrade(self) -> None:
        """Create or migrate the tables, unless another process has just done so. Raises UnusableDatabaseError."""
        from edgeproxy.collector.database.migrate import LaterRevisionError, upgrade

        async with self._migrating() as connection:
            if not self.is_sqlite:
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
                await self._check_server(connection)  # Tables that another process has just made may be another role's.
            if await connection.run_sync(_fetch_revision) != REVISION:
                try:
                    await connection.run_sync(upgrade)
                except LaterRevisionError as error:
                    raise UnusableDatabaseError(f"{self.name} was made by a later version: {error}") from error

    @asynccontextmanager
    async def _migrating(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction without a time limit: creating an index of a million rows takes a minute."""
        engine = self._writer if self.is_sqlite else self._server.create_engine(1, patience=None)
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            if engine is not self._writer:
                await engine.dispose()

    async def enforce_row_security(self) -> None:
        """Bring row-level security up to date, as far as the user may. Store what is missing in `row_security_gap`.

        Raises HiddenRowsError.
        """
        if not self.is_sqlite:
            self.row_security_gap = await row_security.enforce(self._writer.begin)

    async def grant_rights(self, login: str) -> None:
        """Grant a collector's PostgreSQL login its rights to these tables. The user must own them."""
        async with self._writer.begin() as connection:
            await grant_rights(connection, login)

    async def set_minutes_floor(self, seconds: float | None) -> None:
        """Forbid such a login to drop minutes younger than `seconds`, or any minutes if None."""
        async with self._writer.begin() as connection:
            await set_minutes_floor(connection, seconds)

    def set_option(self, name: str, value: object) -> None:
        """Set an option of all new connections, for code that works on them. No statement depends on it."""
        for engine in self._engines:
            engine.sync_engine.update_execution_options(**{name: value})

    def set_book_cipher(self, cipher: BookCipher) -> None:
        """Make all later statements encrypt and decrypt text of the books with this cipher."""
        for engine in self._engines:
            set_book_cipher(engine.sync_engine, cipher)

    def _exists(self) -> bool:
        return os.path.exists(self._given.database or "")

    async def _check(self) -> None:
        """Check that this version can use the unchanged database. Raises UnusableDatabaseError and HiddenRowsError."""
        async with self._reader.connect() as connection:
            if not self.is_sqlite:
                self.ownership = await fetch_ownership(connection)
            await connection.run_sync(self._check_revision)
            if not self.is_sqlite:
                self.row_security_gap = await row_security.must_see_rows(connection)

    def _check_revision(self, connection: sa.Connection) -> None:
        """Raise UnusableDatabaseError if the tables have another revision than this version needs."""
        revision = _fetch_revision(connection)
        if revision != REVISION:
            owns = self.ownership is None or self.ownership.has_ownership
            hint = "run `edgeproxy database migrate`, or start the collector," if owns else HINT
            raise UnusableDatabaseError(f"{self.name} is of revision {revision}, not {REVISION}: {hint} first")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end, or rolled back if an exception is raised.

        It serves only one customer if `row_security.serving` says so, as transactions of `reading` do.
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
            self.ledger.forget()
            raise

    @asynccontextmanager
    async def reading(self, *, whole: bool = False) -> AsyncIterator[AsyncConnection]:
        """A read-only connection. With `whole` all statements see one snapshot; otherwise each sees its own."""
        engine = self._job_reader if is_giving_way() else self._reader
        async with engine.connect() as connection:
            with counting_work():
                if self.is_sqlite:
                    await connection.execution_options(**{WHOLE: whole})
                else:
                    customer = self._served_customer()
                    # The customer is set for one transaction, so reading for a customer needs a transaction. Behind a
                    # connection pooler all settings last for one transaction, so a pooled connection needs one as well.
                    is_single = customer is None and not self._server.is_pooled
                    each = "AUTOCOMMIT" if is_single else "READ COMMITTED"
                    await connection.execution_options(isolation_level="REPEATABLE READ" if whole else each)
                    if customer is not None:
                        await row_security.serve(connection, customer)
                yield connection  # The first statement begins a transaction. It ends when the connection is released.

    def _report_refusal(self, error: Exception) -> None:
        """Log that the owner of the tables refuses to drop minutes."""
        self._rare_log.error("minutes are not dropped", format_reason(error), hint=HINT)

    def _give_way(self, *_: object) -> None:
        """Delay a job's statement while page requests are waiting."""
        if self.precedence.is_due():
            await_only(self.precedence.give_way())

    def _served_customer(self) -> str | None:
        """Return the customer that a new transaction is restricted to, or None if row-level security does not apply."""
        return None if self.is_sqlite or self.row_security_gap else row_security.served_customer()

    async def purge_deleted(self, *, has_erased: bool = False) -> bool:
        """Remove deleted rows from files. Return False if another transaction prevents it for now.

        SQLite overwrites deleted rows (`secure_delete`), but first in the write-ahead log, so this method truncates the
        log. PostgreSQL leaves deleted rows in place. This method rewrites its tables of keys if the user owns them and
        rows were deleted; `has_erased` says that data keys were. Without its key, encrypted data is unreadable, so keys
        are enough.
        """
        if self.is_sqlite:
            async with self._writer.connect() as connection:
                await connection.execution_options(**{WHOLE: False})  # No transaction: it would block the checkpoint.
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
        """Copy a snapshot of a SQLite database to a new file, while others may write. Return the size in bytes.

        The file appears only when it is complete. Raises sqlite3.Error and OSError.
        """
        part = to.with_name(f"{to.name}.part")
        part.unlink(missing_ok=True)
        try:
            source = sqlite3.connect(self._given.database or "", timeout=LOCK_TIMEOUT)
            os.close(open_owner_only(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            with closing(source), closing(sqlite3.connect(part)) as target:
                source.backup(target)  # In one step: a copy in several steps restarts after each commit.
            with part.open("rb") as copied:
                os.fsync(copied.fileno())
            os.link(part, to)  # Unlike a rename, a link never replaces an existing file.
        finally:
            part.unlink(missing_ok=True)
        return to.stat().st_size

    def beginning(self, column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
        """Return the condition that a printable ASCII text begins with another, by an index in character order."""
        plain = self.by_character(column)
        return (plain >= text) & (plain < f"{text}\x7f")

    def by_character(self, column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
        """Return a text column in character order, the order of the index that `beginning` uses."""
        return column if self.is_sqlite else sa.collate(column, "C")

    async def hold(self, connection: AsyncConnection, name: str) -> None:
        """Lock a name against other holders until the transaction ends."""
        if not self.is_sqlite:  # SQLite has one writer.
            number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))


async def _rewrite_table(connection: AsyncConnection, table: str) -> bool:
    """Rewrite the file of a table without deleted rows. Return False if another session uses the table.

    It retries instead of setting `lock_timeout`: behind a pooler a session's setting would reach other sessions.
    """
    select_file = f"SELECT pg_relation_filenode('{table}')"
    before = (await connection.exec_driver_sql(select_file)).scalar_one()
    for _ in range(PURGE_ATTEMPTS):
        await connection.exec_driver_sql(f"VACUUM (FULL, SKIP_LOCKED) {table}")
        if (await connection.exec_driver_sql(select_file)).scalar_one() != before:
            await connection.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {table}")  # It counts dead rows; FULL does not.
            return True
        await asyncio.sleep(PURGE_TIMEOUT_MS / 1000 / PURGE_ATTEMPTS)
    return False


def build_insert(connection: AsyncConnection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Begin an INSERT in the connection's dialect, which supports ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def build_insert_new(connection: AsyncConnection, table: sa.Table, *names: str) -> Any:
    """Begin an INSERT that skips rows whose columns `names` conflict with an existing row."""
    return build_insert(connection, table).on_conflict_do_nothing(index_elements=names)


def build_upsert(connection: AsyncConnection, table: sa.Table, row: Mapping[str, object], *names: str) -> sa.Executable:
    """Build the statement that inserts a row, or replaces the row with equal columns `names`."""
    return build_insert(connection, table).values(row).on_conflict_do_update(index_elements=names, set_=row)


def add_last_step(connection: AsyncConnection, step: LastStep) -> None:
    """Run a step at the end of a transaction of `Database.writing`, before its commit. Steps run in their order.

    Use it for a step that takes a lock which all others need, so that the lock is held briefly.
    """
    assert connection.sync_connection is not None
    connection.sync_connection.get_execution_options()[LAST_STEPS].append(step)


def is_overflow(error: Exception) -> bool:
    """Return True if a number was too large for the database."""
    return isinstance(error, sa.exc.DBAPIError) and any(message in str(error.orig) for message in OVERFLOW_MESSAGES)


def format_reason(error: Exception) -> str:
    """Return the message of a driver's error in one line."""
    driver_error = getattr(error, "orig", None) or error
    return str(driver_error).partition("\n")[0].rpartition("'>: ")[2] or type(driver_error).__name__


def _create_sqlite_engine(
    url: URL, begin: str, connections: int, *, patience: float = STATEMENT_TIMEOUT
) -> AsyncEngine:
    """Create an engine for a SQLite file.

    `begin` is the statement that begins a transaction. A transaction that reads and then writes must take the write
    lock at its beginning. A caller waits for a connection for at most half of `patience` seconds, as with a server.
    """
    engine = create_async_engine(
        url.set(drivername=DRIVER),
        connect_args={"timeout": LOCK_TIMEOUT, "factory": LenientConnection},
        pool_size=connections,
        max_overflow=0,
        pool_timeout=patience / 2,
        hide_parameters=True,  # Parameters may be personal data, and error messages are logged.
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # So that the driver begins no transaction of its own.
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",  # Deleted data is overwritten, also in unused pages.
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
    """Return the revision of the tables, or None if there are no tables yet."""
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    return connection.execute(sa.select(VERSION.c.version_num)).scalar_one_or_none()
