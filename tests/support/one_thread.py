"""SQLite for thousands of short database lives in one process, without threads and without waits for the disk.

Each statement runs at once in the calling thread, so the results do not depend on the scheduling of threads. It is
compiled once in a process, for all databases. Tests of the database cover power loss.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteExecutionContext
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import LRUCache, await_

from edgeproxy.collector.database import database
from edgeproxy.collector.database.book_text import _ciphers
from edgeproxy.collector.database.database import Database


class Done:
    """An awaitable that is already complete."""

    def __await__(self) -> Iterator[None]:
        return iter(())


DONE = Done()


class Cursor(sqlite3.Cursor):
    """A cursor whose whole result is stored until it is read."""

    async def _async_soft_close(self) -> None:
        pass


class Connection(sqlite3.Connection):
    """A connection with the interface of an asynchronous one."""

    def cursor(self, *_: Any) -> Cursor:
        return super().cursor(Cursor)


class Context(SQLiteExecutionContext):
    """A statement. A cursor that streams its result is like any other here."""

    def create_server_side_cursor(self) -> Any:
        return self.create_default_cursor()


class AtOnce(SQLiteDialect_pysqlite):
    """The driver of the standard library for asynchronous callers: results are ready at once."""

    driver = "at_once"
    is_async = True
    supports_statement_cache = True
    supports_server_side_cursors = True
    execution_ctx_cls = Context

    @classmethod
    def get_pool_class(cls, url: sa.URL) -> type[sa.Pool]:
        """Return the pool class of the driver with threads."""
        return sa.AsyncAdaptedQueuePool

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Await something, because SQLAlchemy requires an await."""
        await_(DONE)
        cursor.execute(statement, parameters)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Await something, because SQLAlchemy requires an await."""
        await_(DONE)
        cursor.executemany(statement, parameters)


class CompiledStatements(LRUCache[Any, Any]):
    """The compiled statements of all engines without threads.

    The first part of a key is the dialect of one engine. These dialects are alike but for the cipher of the books.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._share(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(self._share(key), value)

    def _share(self, key: Any) -> Any:
        return _ciphers.get(key[0]), *key[1:]


COMPILED = CompiledStatements(2000)

registry.register(f"sqlite.{AtOnce.driver}", __name__, AtOnce.__name__)


def create_engine(given: sa.URL, *, connect_args: dict[str, Any], **options: Any) -> AsyncEngine:
    """Create an engine without threads for a SQLite file, with the options of the product's."""
    options["connect_args"] = connect_args | {"factory": Connection}
    options["execution_options"] = {"compiled_cache": COMPILED}
    return create_async_engine(given.set(drivername=f"sqlite+{AtOnce.driver}"), **options)


def in_memory(url: str) -> Database:
    """Return a SQLite database with the tables, without disk syncs. It can be closed, its file replaced, and used
    again; compiled statements stay cached.
    """
    with mock.patch.object(database, "create_async_engine", create_engine):
        made = Database(url)
    for one in (made._writer, made._reader):
        event.listen(one.sync_engine, "connect", lambda raw, _: raw.cursor().execute("PRAGMA synchronous=OFF"))
    return made
