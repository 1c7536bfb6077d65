"""Changes of a collector's database beside it, each in a transaction as its own."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from loadtest.testbed.collector import Collector


def changes(collector: Collector, change: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    """Make a change."""

    async def make() -> None:
        database = await Database.connect(collector.settings["database"])
        try:
            async with database.writing() as connection:
                await change(connection)
        finally:
            await database.close()

    asyncio.run(make())
