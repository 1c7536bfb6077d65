"""Work that is done again and again for as long as a process serves, whatever one time of it comes to."""

import asyncio
from collections.abc import Awaitable, Callable

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.single_runner import JobLock, LockLostError, acquire_lock


async def run_guarded(
    limited_log: log.RateLimitedLog, failed: str, work: Awaitable[object], *expected: type[Exception]
) -> bool:
    """Await `work`; whether it was done. Where not, `failed` is logged with the reason.

    The traceback is logged too, unless the database is away or it is one of the `expected` exceptions.
    """
    try:
        await work
    except (*CONNECTION_ERRORS, *expected) as error:
        limited_log.error(failed, format_reason(error))
    except Exception as unexpected_error:
        limited_log.error(failed, repr(unexpected_error), exc_info=unexpected_error)
    else:
        return True
    return False


async def repeat(
    seconds: float,
    limited_log: log.RateLimitedLog,
    failed: str,
    work: Callable[[], Awaitable[object]],
    *expected: type[Exception],
) -> None:
    """Do `work`, see `run_guarded`, with a rest of `seconds` after each time, until cancelled."""
    while True:
        await run_guarded(limited_log, failed, work(), *expected)
        await asyncio.sleep(seconds)


async def run_exclusively(database: Database, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` unless another collector does the job of this name now. Where the lock of it is lost meanwhile, it is
    cancelled, and LockLostError raised.
    """
    async with acquire_lock(database, name) as lock:
        if lock.is_ours:
            await _run_while_locked(lock, name, work)


async def _run_while_locked(lock: JobLock, name: str, work: Callable[[], Awaitable[object]]) -> None:
    failed: list[Exception] = []

    async def do() -> None:
        try:
            await work()
        except Exception as error:
            failed.append(error)

    tasks = Tasks()
    done, lost = tasks.start(name, do()), tasks.start(f"the lock of {name}", lock.wait_until_lost())
    try:
        await asyncio.wait((done, lost), return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_lost = not done.done()
        await tasks.cancel()
    if is_lost:
        raise LockLostError(f"the lock of {name} is lost: {lost.result()}")
    if failed:
        raise failed[0]
