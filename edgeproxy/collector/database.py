"""The collector's database: SQLite or PostgreSQL, from one code. The one file that knows which it is.

Writing goes over one connection at a time, `writing`, whose transactions see all that was committed before them.
Reading, `reading`, waits for nobody.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from edgeproxy.collector.schema import REVISION, edges, ledger, series

CONNECT_TIMEOUT = 10.0
"""Seconds until a server must have answered."""
STATEMENT_TIMEOUT = 60.0
"""Seconds that a statement may take on PostgreSQL."""
LOCK_TIMEOUT = 30.0
"""Seconds that a transaction on SQLite waits for another process to end its own."""
READERS = 4
"""Connections for reading."""
OLDEST = 150000
"""The oldest PostgreSQL, as the server numbers it."""
MIGRATING = 7305_0001
"""The advisory lock of PostgreSQL under which tables are made and changed."""

VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))
"""Where Alembic keeps the revision."""

LOST = (sa.exc.OperationalError, sa.exc.InterfaceError, OSError, TimeoutError)
"""What says that the database cannot be had now, whatever it was asked."""
AWAY = ("08", "53", "57P")
"""How the SQLSTATE of what says so of PostgreSQL begins: no connection, no resources, the server starts or ends."""
TOO_MUCH = ("cannot store REAL value in INTEGER column", "out of range")
"""What a sum beyond 63 bits makes of itself: SQLite's strict tables, and PostgreSQL."""


class Unusable(Exception):
    """The database cannot be used: a sentence for who started the collector."""


class Database:
    """An open database with the tables of `schema.py`, made by `connect`."""

    def __init__(self, url: str) -> None:
        given = make_url(url)
        self.name = given.render_as_string(hide_password=True)
        """The URL, without its password."""
        self.is_sqlite = given.get_backend_name() == "sqlite"
        self._given = given
        self._add = self._adding()
        if self.is_sqlite:
            self._writer = _sqlite(given, "BEGIN IMMEDIATE", 1)
            self._reader = _sqlite(given, "BEGIN", READERS)
        else:
            self._writer = _postgresql(given, 1)
            self._reader = _postgresql(given, READERS)

    @classmethod
    async def connect(cls, url: str, *, as_it_is: bool = False) -> "Database":
        """Open the database, make its tables or bring them up to date; raises Unusable.

        With `as_it_is` it must be there and up to date already, and is not changed.
        """
        database = cls(url)
        if as_it_is and database.is_sqlite and not database._is_there():
            raise Unusable(f"{database.name} is not there")
        try:
            await (database._look() if as_it_is else database._prepare())
        except BaseException as failure:
            await database.close()
            if isinstance(failure, Unusable):
                raise
            if isinstance(failure, Exception):
                raise Unusable(f"{database.name} cannot be used: {reason(failure)}") from failure
            raise
        return database

    async def close(self) -> None:
        """End all connections."""
        await self._writer.dispose()
        await self._reader.dispose()

    async def _prepare(self) -> None:
        if self.is_sqlite:
            assert self._given.database is not None
            Path(self._given.database).parent.mkdir(parents=True, exist_ok=True)
        async with self._writer.begin() as connection:
            if not self.is_sqlite:
                version = (await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()
                if int(version) < OLDEST:
                    raise Unusable(
                        f"{self.name} is PostgreSQL {int(version) // 10000}, and 15 is the oldest that will do"
                    )
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATING)))
            if await connection.run_sync(_revision) != REVISION:
                from edgeproxy.collector.migrate import Later, upgrade

                try:
                    await connection.run_sync(upgrade)
                except Later as failure:
                    raise Unusable(f"{self.name} was made by a later version: {failure}") from failure

    def _is_there(self) -> bool:
        return os.path.exists(self._given.database or "")

    async def _look(self) -> None:
        async with self._reader.connect() as connection:
            revision = await connection.run_sync(_revision)
        if revision != REVISION:
            raise Unusable(f"{self.name} is of revision {revision}, not {REVISION}: start the collector on it first")

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end, and rolled back where anything is raised."""
        async with self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, *, whole: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads; with `whole`, all that it reads is of one moment."""
        async with self._reader.connect() as connection:
            if whole and not self.is_sqlite:  # SQLite knows no other way.
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                yield connection

    async def begin_edges(self, connection: AsyncConnection, found: Sequence[Mapping[str, Any]]) -> None:
        """Make rows of edges that are new, unless another collector has made them meanwhile."""
        await connection.execute(self._insert(edges).on_conflict_do_nothing(), list(found))

    async def begin_series(self, connection: AsyncConnection, found: Sequence[Sequence[str]]) -> None:
        """Make series that are new: [edge, region, customer, meter, route] each."""
        names = [column.name for column in series.columns if column.name != "id"]
        insert = self._insert(series)
        rows: Any = [dict(zip(names, one, strict=True)) for one in found]
        if not self.is_sqlite:
            lists = {name: sa.bindparam(name, type_=ARRAY(sa.Text())) for name in names}
            insert = insert.from_select(names, _unnested(lists))
            rows = {name: [row[name] for row in rows] for name in names}
        await connection.execute(insert.on_conflict_do_nothing(), rows)

    async def add(self, connection: AsyncConnection, grown: Mapping[int, Mapping[int, int]]) -> None:
        """Add to the ledger: by how much each series has grown in each minute; by minute, then by series."""
        rows = [(one, minute, value) for minute, values in grown.items() for one, value in values.items()]
        if self.is_sqlite:
            # Past SQLAlchemy, which would look at every value of every row once more: that takes half of the time.
            await connection.exec_driver_sql(self._add, rows)
            return
        # As text: the driver looks at each number of a list three times, which takes longer than all the rest.
        columns = ("{" + ",".join(map(str, column)) + "}" for column in zip(*rows, strict=True))
        await connection.execute(self._add, dict(zip(ledger.columns.keys(), columns, strict=True)))

    def _adding(self) -> Any:
        """The statement that adds to the ledger."""
        insert = self._insert(ledger)
        names = ledger.columns.keys()
        if not self.is_sqlite:
            texts = {name: sa.cast(sa.bindparam(name, type_=sa.Text()), ARRAY(sa.BigInteger())) for name in names}
            insert = insert.from_select(names, _unnested(texts))
        statement = insert.on_conflict_do_update(
            index_elements=[ledger.c.series, ledger.c.minute],
            set_={"value": ledger.c.value + insert.excluded.value},
        )
        if not self.is_sqlite:
            return statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
        assert compiled.positiontup == names
        return str(compiled)

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


def is_too_much(failure: Exception) -> bool:
    """Whether the database could not hold a number."""
    return isinstance(failure, sa.exc.DBAPIError) and any(said in str(failure.orig) for said in TOO_MUCH)


def reason(failure: Exception) -> str:
    """What a driver says, in a line."""
    said = getattr(failure, "orig", None) or failure
    return str(said).partition("\n")[0].rpartition("'>: ")[2] or type(said).__name__


def _unnested(arrays: Mapping[str, sa.ColumnElement[Any]]) -> sa.Select[Any]:
    """The rows that arrays make, one for each column: one statement for any number of rows."""
    made = sa.func.unnest(*arrays.values()).table_valued(*arrays)
    return sa.select(*made.render_derived().columns)


def _sqlite(url: URL, begin: str, connections: int) -> AsyncEngine:
    """Connections to a file. `begin` begins a transaction: one that reads and then writes must not wait in between."""
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        connect_args={"timeout": LOCK_TIMEOUT},
        pool_size=connections,
        max_overflow=0,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.isolation_level = None  # So that the driver begins no transaction of its own.
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"query_only={int(begin == 'BEGIN')}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begins(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgresql(url: URL, connections: int) -> AsyncEngine:
    mode = url.query.get("sslmode")
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg", query={"ssl": mode} if mode else {}),
        connect_args={
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": STATEMENT_TIMEOUT,
            # What was acknowledged must be on disk, whatever the server does for others.
            "server_settings": {"application_name": "edgeproxy collector", "synchronous_commit": "on"},
        },
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
    )

    @event.listens_for(engine.sync_engine, "handle_error")
    def tell_lost(context: Any) -> Exception | None:
        """What a server says that starts or ends is LOST, and no fault of ours."""
        said = context.original_exception
        if not str(getattr(said, "sqlstate", None)).startswith(AWAY):
            return None
        return sa.exc.OperationalError(context.statement, context.parameters, said)

    return engine


def _revision(connection: sa.Connection) -> str | None:
    """Of which revision the tables are; None where there are none yet."""
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    return connection.execute(sa.select(VERSION.c.version_num)).scalar_one_or_none()
