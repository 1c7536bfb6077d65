"""Work that is done again and again for as long as a process serves, whatever one time of it comes to."""

import asyncio
from collections.abc import Awaitable, Callable

from edgeproxy import log
from edgeproxy.database.database import LOST, Database, reason
from edgeproxy.database.single_runner import alone


async def guarded(seldom: log.Seldom, failed: str, work: Awaitable[object], *expected: type[Exception]) -> bool:
    """Await `work`; whether it was done. Where not, `failed` is logged with the reason.

    The traceback is logged too, unless the database is away or it is one of the `expected` exceptions.
    """
    try:
        await work
    except (*LOST, *expected) as failure:
        seldom.error(failed, reason(failure))
    except Exception as unforeseen:
        seldom.error(failed, repr(unforeseen), exc_info=unforeseen)
    else:
        return True
    return False


async def repeat(
    seconds: float,
    seldom: log.Seldom,
    failed: str,
    work: Callable[[], Awaitable[object]],
    *expected: type[Exception],
) -> None:
    """Do `work`, see `guarded`, with a rest of `seconds` after each time, until cancelled."""
    while True:
        await guarded(seldom, failed, work(), *expected)
        await asyncio.sleep(seconds)


async def do_alone(database: Database, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` unless another collector does the job of this name now, see `alone`."""
    async with alone(database, name) as is_ours:
        if is_ours:
            await work()
