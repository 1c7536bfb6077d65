"""What the ledger has counted of quotas, as an edge reads it in the hub."""

import asyncio
import random
from typing import Any

import orjson

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.models import Hub
from edgeproxy.hub.redis import Tls
from edgeproxy.hub.subscription import Subscription
from edgeproxy.wire.directory_versions import Ask, Unreadable
from edgeproxy.wire.quota_counts import COUNTED, MORE, parts

POLL_SECONDS = 2.0
"""Seconds between two looks, a fifth of it more or less, unless there is word that there is more."""


class CountedLog:
    """The list in the hub. `ask` asks it; a connection of its own hears what is published."""

    def __init__(self, ask: Ask, hub: Hub) -> None:
        self._ask = ask
        self._seq = 0
        self._more = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start("news of quotas", Subscription(hub.url, Tls.of(hub.tls), MORE, self._more.set).run())

    async def news(self) -> list[Any]:
        """Return what is new, once there is something or a while is over. Raises Away, ResponseError and Unreadable."""
        self._more.clear()
        found = await self._look()
        if not found:
            try:
                async with asyncio.timeout(POLL_SECONDS * random.uniform(0.8, 1.2)):
                    await self._more.wait()
            except TimeoutError:
                pass
            found = await self._look()
        return found

    async def _look(self) -> list[Any]:
        try:
            last = await self._ask("LINDEX", COUNTED, -1)
            newest = 0 if last is None else parts(last)[0]
            if newest == self._seq:
                return []
            known = self._seq if self._seq < newest else 0  # Of another database, or one that was restored.
            lines = [parts(raw) for raw in await self._ask("LRANGE", COUNTED, known - newest - 1, -1)]
            if lines and lines[0][0] > known:
                lines = [parts(raw) for raw in await self._ask("LRANGE", COUNTED, 0, -1)]
            found = [orjson.loads(said) for seq, said in lines if seq > known]
        except ValueError as error:
            raise Unreadable(f"what the hub has of quotas cannot be read: {error}") from error
        self._seq = lines[-1][0] if lines else newest
        return found

    async def close(self) -> None:
        """It is read no more."""
        await self._tasks.cancel()
