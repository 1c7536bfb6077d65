"""A process that closes invoices until it is killed, for tests that kill it."""

import asyncio
import multiprocessing
from contextlib import AsyncExitStack
from multiprocessing.synchronize import Event
from pathlib import Path

import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.single_runner import acquire_lock
from tests.support.era import era
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import SandboxAt

CONTEXT = multiprocessing.get_context("forkserver")
"""It imports everything once, so that short-lived processes can do some work."""
CONTEXT.set_forkserver_preload(["stripe", __name__])
UNSETTLED = (invoices.DRAFT, invoices.CLOSING)
"""States of invoices that still need work."""
REST_SECONDS = 0.05


def closer(folder: Path, url: str, stripe: str, now: int) -> "multiprocessing.context.ForkServerProcess":
    """Start a process that closes invoices, from this Unix second on."""
    process = CONTEXT.Process(target=_run, args=(folder, url, stripe, now))
    process.start()
    return process


def _run(folder: Path, url: str, stripe: str, now: int) -> None:
    asyncio.run(_close(folder, url, stripe, now))


async def _close(folder: Path, url: str, stripe: str, now: int) -> None:
    """Close for ever. Its clock goes on to when there is something to do, and no further: else periods would end."""
    async with sold(folder, url, stripe) as (shop, closing):
        while True:
            await closing.step(now)
            due = await _due(shop)
            now = max(now, due or 0)
            await asyncio.sleep(0 if due else REST_SECONDS)


def meter_closer(folder: Path, url: str, port: int) -> tuple["multiprocessing.context.ForkServerProcess", Event]:
    """Start a process that exports usage to the meters of the sandbox at this port, and closes their invoices. Of
    several, one at a time does each, as of collectors. The event is set once it has done all work that was due."""
    worked = CONTEXT.Event()
    process = CONTEXT.Process(target=_run_meters, args=(folder, url, port, worked))
    process.start()
    return process, worked


def _run_meters(folder: Path, url: str, port: int, worked: Event) -> None:
    asyncio.run(_close_by_meters(folder, url, port, worked))


async def _close_by_meters(folder: Path, url: str, port: int, worked: Event) -> None:
    async with era(folder, url, SandboxAt(port), None) as timeline, AsyncExitStack() as held:
        database, ours = timeline.of.database, dict.fromkeys(("closing", "exports"), False)
        while True:
            timeline.follow()
            for name in [name for name, is_ours in ours.items() if not is_ours]:
                attempt = await held.enter_async_context(AsyncExitStack())
                lock = await attempt.enter_async_context(acquire_lock(database, name))
                ours[name] = lock.is_ours
                if not lock.is_ours:
                    await attempt.aclose()
                elif name == "exports":
                    await timeline.exports.take_over()
            if ours["closing"]:
                await timeline.closing.step(timeline.now())
            if ours["exports"]:
                await timeline.export()
            worked.set()
            await asyncio.sleep(REST_SECONDS)


async def _due(shop: Sold) -> int | None:
    """Return when the next invoice is due."""
    due = sa.select(sa.func.min(table.c.try_at)).where(table.c.state.in_(UNSETTLED))
    async with shop.database.reading() as connection:
        rows: int | None = (await connection.execute(due)).scalar_one()
    return rows
