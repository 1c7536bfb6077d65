"""Two transactions on PostgreSQL. The first stops in the middle until the second is done or waits for a lock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.util import await_only

from edgeproxy.collector.database.database import Database

Act = Callable[[Database], Awaitable[object]]
"""Work in transactions of a database."""
WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)
DEADLINE_SECONDS = 60


async def interleave(database: Database, url: str, first: Act, stop: str, second: Act) -> None:
    """Run both at once, the second over connections of its own.

    The first stops after its first statement that contains `stop`, and continues once the second is done or waits.
    Raises the error of either.
    """
    other, tasks = await Database.connect(url), list["asyncio.Task[object]"]()

    async def act() -> object:
        return await second(other)

    async def wait_until_blocked() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), database.reading() as connection:
            while not (tasks[0].done() or (await connection.execute(WAITING)).scalar_one()):
                await asyncio.wait(tasks, timeout=0.01)

    def stops(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if stop in statement and not tasks:
            tasks.append(asyncio.get_running_loop().create_task(act()))
            await_only(wait_until_blocked())

    event.listen(database._writer.sync_engine, "after_cursor_execute", stops)
    try:
        await first(database)
        assert tasks, f"no statement has {stop}"
    finally:
        event.remove(database._writer.sync_engine, "after_cursor_execute", stops)
        await asyncio.gather(*tasks)
        await other.close()
