"""The SQLite driver of the collector: a statement and its rows take one step of the connection's thread.

SQLAlchemy's own adapter of aiosqlite makes a step for each cursor, statement, list of rows and close. Each step costs
two switches of threads, and a short statement takes less than one of them.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

import aiosqlite
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
)

if TYPE_CHECKING:
    from sqlalchemy.connectors.asyncio import AsyncIODBAPICursor

DRIVER: Final = "sqlite+one_step"
"""The name of the driver in URLs."""


class _Statement:
    """A statement with the interface of a cursor of aiosqlite. Its rows are read at once."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._rows: list[object] = []
        self.description: Sequence[object] | None = None
        self.arraysize, self.rowcount = 1, -1
        self.lastrowid: int | None = None

    async def execute(self, statement: str, parameters: Iterable[object] = ()) -> None:
        """Execute a statement and read its rows."""
        await self._step("execute", statement, parameters)

    async def executemany(self, statement: str, parameters: Iterable[Iterable[object]]) -> None:
        """Execute a statement once for each of the parameters."""
        await self._step("executemany", statement, parameters)

    async def fetchall(self) -> list[object]:
        """Return the rows, once: a result may live for long, and needs no second list of them."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """Do nothing: the cursor is closed already."""

    async def _step(self, method: str, *arguments: object) -> None:
        await self._connection._execute(self._run, method, *arguments)  # type: ignore[no-untyped-call]

    def _run(self, method: str, *arguments: object) -> None:
        """Call a method of a new cursor in the thread of the connection, and read all rows."""
        with closing(self._connection._conn.cursor()) as cursor:
            getattr(cursor, method)(*arguments)
            self.description = cursor.description
            self._rows = cursor.fetchall() if cursor.description else []
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid


class _Cursor(AsyncAdapt_aiosqlite_cursor):
    __slots__ = ()
    _awaitable_cursor_close = False

    def _make_new_cursor(self, connection: aiosqlite.Connection) -> _Statement:  # type: ignore[override]
        return _Statement(connection)

    def _aenter_cursor(self, cursor: "AsyncIODBAPICursor") -> "AsyncIODBAPICursor":
        return cursor


class _Connection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()
    _cursor_cls = _Cursor


class _Module(AsyncAdapt_aiosqlite_dbapi):
    def connect(self, *arguments: object, **options: object) -> _Connection:
        """Return a new connection."""
        return _Connection(self, super().connect(*arguments, **options)._connection)


class Dialect(SQLiteDialect_aiosqlite):
    """SQLAlchemy's dialect with this driver."""

    driver = DRIVER.partition("+")[2]
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> _Module:
        """Return the module of the driver."""
        return _Module(aiosqlite, sqlite3)


registry.register(DRIVER.replace("+", "."), __name__, Dialect.__name__)
