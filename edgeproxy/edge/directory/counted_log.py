"""What the ledger has counted of quotas, as an edge reads it in the hub."""

import asyncio
import random
from typing import Any

import orjson

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.hub.redis import Tls
from edgeproxy.hub.subscription import Subscription
from edgeproxy.wire.directory_versions import CallHub, UnreadableDirectoryError
from edgeproxy.wire.quota_counts import COUNTS_KEY, NEWS_CHANNEL, parse_line

POLL_SECONDS = 2.0
"""Seconds between two looks, a fifth of it more or less, unless there is word that there is more."""


class QuotaCountLog:
    """The list in the hub. `ask` asks it; a connection of its own hears what is published."""

    def __init__(self, ask: CallHub, hub: Hub) -> None:
        self._ask = ask
        self._seq = 0
        self._more = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(
            "news of quotas", Subscription(hub.url, Tls.from_settings(hub.tls), NEWS_CHANNEL, self._more.set).run()
        )

    async def news(self) -> list[Any]:
        """Return what is new, once there is something or a while is over. Raises Away, ResponseError and Unreadable."""
        self._more.clear()
        counts = await self._fetch_new()
        if not counts:
            try:
                async with asyncio.timeout(POLL_SECONDS * random.uniform(0.8, 1.2)):
                    await self._more.wait()
            except TimeoutError:
                pass
            counts = await self._fetch_new()
        return counts

    async def _fetch_new(self) -> list[Any]:
        try:
            last = await self._ask("LINDEX", COUNTS_KEY, -1)
            newest = 0 if last is None else parse_line(last)[0]
            if newest == self._seq:
                return []
            known_seq = self._seq if self._seq < newest else 0  # Of another database, or one that was restored.
            lines = [parse_line(raw) for raw in await self._ask("LRANGE", COUNTS_KEY, known_seq - newest - 1, -1)]
            if lines and lines[0][0] > known_seq:
                lines = [parse_line(raw) for raw in await self._ask("LRANGE", COUNTS_KEY, 0, -1)]
            counts = [orjson.loads(count) for seq, count in lines if seq > known_seq]
        except ValueError as error:
            raise UnreadableDirectoryError(f"what the hub has of quotas cannot be read: {error}") from error
        self._seq = lines[-1][0] if lines else newest
        return counts

    async def close(self) -> None:
        """It is read no more."""
        await self._tasks.cancel()
