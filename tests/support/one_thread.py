"""SQLite for thousands of short lives in one process: no thread for each connection, and no waiting for the disk.

Each statement is done where it is asked for, so that nothing of what happens depends on how the machine shares out its
threads. What a killed machine would leave is for tests of the database.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any
from unittest import mock

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_

from edgeproxy.collector.database import database
from edgeproxy.collector.database.database import Database


class Done:
    """What has come when it is awaited."""

    def __await__(self) -> Iterator[None]:
        return iter(())


DONE = Done()


class Cursor(sqlite3.Cursor):
    """All of an answer is there, until it is read."""

    async def _async_soft_close(self) -> None:
        pass


class Connection(sqlite3.Connection):
    """Answers as one whose answers are awaited."""

    def cursor(self, *_: Any) -> Cursor:
        return super().cursor(Cursor)


class AtOnce(SQLiteDialect_pysqlite):
    """The driver of the standard library, for who awaits its answers: they are there when they are asked for."""

    driver = "at_once"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: sa.URL) -> type[sa.Pool]:
        """As that of the driver with threads."""
        return sa.AsyncAdaptedQueuePool

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """SQLAlchemy insists that something is awaited."""
        await_(DONE)
        cursor.execute(statement, parameters)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """The same for many."""
        await_(DONE)
        cursor.executemany(statement, parameters)


registry.register(f"sqlite.{AtOnce.driver}", __name__, AtOnce.__name__)


def in_memory(url: str) -> Database:
    """A database of SQLite that has its tables, and leaves its file to the operating system. It can be closed, its file
    replaced, and used again: what is known of statements stays.
    """

    def engine(given: sa.URL, *, connect_args: dict[str, Any], **options: Any) -> AsyncEngine:
        options["connect_args"] = connect_args | {"factory": Connection}
        return create_async_engine(given.set(drivername=f"sqlite+{AtOnce.driver}"), **options)

    with mock.patch.object(database, "create_async_engine", engine):
        made = Database(url)
    for one in (made._writer, made._reader):
        event.listen(one.sync_engine, "connect", lambda raw, _: raw.cursor().execute("PRAGMA synchronous=OFF"))
    return made
