"""A hub that is up, while a test has it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from edgeproxy.hub.hub import Hub, KeyFilter
from edgeproxy.hub.redis import Tls

PATIENCE = 15.0


async def until(true: Callable[[], bool]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110, another task changes the condition
            await asyncio.sleep(0.01)


@asynccontextmanager
async def tried(
    url: str, instance: int = 1, tls: Tls | None = None, renewed: Callable[[KeyFilter], None] = lambda has: None
) -> AsyncIterator[Hub]:
    """A hub that is being connected."""
    hub = Hub(url, instance, lambda: None, tls, renewed)
    running = asyncio.get_running_loop().create_task(hub.run())
    try:
        yield hub
    finally:
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


@asynccontextmanager
async def reached(
    url: str, instance: int = 1, tls: Tls | None = None, renewed: Callable[[KeyFilter], None] = lambda has: None
) -> AsyncIterator[Hub]:
    """A hub that is up."""
    async with tried(url, instance, tls, renewed) as hub:
        await until(lambda: hub.is_up)
        yield hub
