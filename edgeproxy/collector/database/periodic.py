"""Work that is done again and again for as long as a process serves, whatever one time of it comes to."""

import asyncio
from collections.abc import Awaitable, Callable

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import LOST, Database, reason
from edgeproxy.collector.database.single_runner import Lock, LockLost, taken


async def guarded(seldom: log.RateLimitedLog, failed: str, work: Awaitable[object], *expected: type[Exception]) -> bool:
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
    seldom: log.RateLimitedLog,
    failed: str,
    work: Callable[[], Awaitable[object]],
    *expected: type[Exception],
) -> None:
    """Do `work`, see `guarded`, with a rest of `seconds` after each time, until cancelled."""
    while True:
        await guarded(seldom, failed, work(), *expected)
        await asyncio.sleep(seconds)


async def do_alone(database: Database, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` unless another collector does the job of this name now. Where the lock of it is lost meanwhile, it is
    cancelled, and LockLost raised.
    """
    async with taken(database, name) as lock:
        if lock.is_ours:
            await _do_while(lock, name, work)


async def _do_while(lock: Lock, name: str, work: Callable[[], Awaitable[object]]) -> None:
    failed: list[Exception] = []

    async def do() -> None:
        try:
            await work()
        except Exception as failure:
            failed.append(failure)

    tasks = Tasks()
    done, lost = tasks.start(name, do()), tasks.start(f"the lock of {name}", lock.lost())
    try:
        await asyncio.wait((done, lost), return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_lost = not done.done()
        await tasks.cancel()
    if is_lost:
        raise LockLost(f"the lock of {name} is lost: {lost.result()}")
    if failed:
        raise failed[0]
