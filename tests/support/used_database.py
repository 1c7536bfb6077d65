"""The collector's database at a URL, used once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edgeproxy.collector.database.database import Database

Result = TypeVar("Result")


def use_database(url: str, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Do something with the database at a URL."""

    async def do() -> Result:
        database = await Database.connect(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(do())
