"""SQLite for thousands of short lives in one process: no thread for each connection, and no waiting for the disk.

Each statement is done where it is asked for, so that nothing of what happens depends on how the machine shares out its
threads. What a killed machine would leave is for tests of the database.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from aiosqlite import core
from sqlalchemy import event

from edgeproxy.database.database import Database

Asked = tuple[Any, Callable[[], Any]]


class AtOnce:
    """What the driver takes for the queue of a thread."""

    def put_nowait(self, asked: Asked) -> None:
        """Do what is asked, and have it done when this returns."""
        future, function = asked
        if future is None:  # Of a connection that is gone: nobody waits for its end.
            function()
            return
        try:
            result = function()
        except Exception as failure:
            future.set_exception(failure)
        else:
            future.set_result(result)

    def get(self) -> Asked:
        """End the thread, as it begins."""
        return None, lambda: core._STOP_RUNNING_SENTINEL


@contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile connections to SQLite have no threads."""
    with mock.patch.object(core, "SimpleQueue", AtOnce):
        yield


def in_memory(url: str) -> Database:
    """A database of SQLite that has its tables, and leaves its file to the operating system. It can be closed, its file
    replaced, and used again: what is known of statements stays.
    """
    database = Database(url)
    for engine in (database._writer, database._reader):
        event.listen(engine.sync_engine, "connect", lambda raw, _: raw.cursor().execute("PRAGMA synchronous=OFF"))
    return database
