"""The ledger's counts of quotas, as an edge reads them in the hub."""

import asyncio
import random

import orjson

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.hub.redis import Tls
from edgeproxy.hub.subscription import Subscription
from edgeproxy.wire.directory_versions import CallHub, UnreadableDirectoryError
from edgeproxy.wire.quota_counts import COUNTS_KEY, LINES_MAX, NEWS_CHANNEL, parse_line

POLL_SECONDS = 2.0
"""Seconds between two polls, a fifth of it more or less, unless a message announces more."""
PAGE_LINES = 64
"""Lines of one request. The bound keeps the directory's answers on this connection from waiting for many."""


class QuotaCountLog:
    """The list in the hub. `ask` sends it commands; a subscription announces more."""

    def __init__(self, ask: CallHub, hub: Hub) -> None:
        self._ask = ask
        self._seq = 0
        self._more = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(
            "news of quotas", Subscription(hub.url, Tls.from_settings(hub.tls), NEWS_CHANNEL, self._more.set).run()
        )

    async def fetch_news(self) -> list[object]:
        """Return the new counts, once there are some or POLL_SECONDS are over.

        Raises HubUnavailableError, HubRefusalError and UnreadableDirectoryError.
        """
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

    async def _fetch_new(self) -> list[object]:
        try:
            last = await self._ask("LINDEX", COUNTS_KEY, -1)
            newest = 0 if last is None else parse_line(last)[0]
            if newest == self._seq:
                return []
            known_seq = self._seq if self._seq < newest else 0  # It belongs to another database, or to a restored one.
            lines = await self._fetch_lines_after(known_seq, newest - known_seq + 1)
            counts = [orjson.loads(count) for seq, count in lines if seq > known_seq]
        except ValueError as error:
            raise UnreadableDirectoryError(f"what the hub has of quotas cannot be read: {error}") from error
        self._seq = lines[-1][0] if lines else newest
        return counts

    async def _fetch_lines_after(self, seq: int, count: int) -> list[tuple[int, bytes]]:
        """Return the lines numbered above `seq`, perhaps after some others, read backwards; `count` are expected.

        Raises UnreadableDirectoryError if the list was changed meanwhile.
        """
        lines = await self._fetch_lines(-min(count, PAGE_LINES), -1)
        while lines and lines[0][0] > seq and len(lines) < LINES_MAX:
            # The page ends with a known line; otherwise the list has changed.
            page = await self._fetch_lines(-len(lines) - PAGE_LINES, -len(lines))
            if not page or page[-1] != lines[0]:
                raise UnreadableDirectoryError("the list was changed while it was read: it is read again")
            if len(page) == 1:
                break
            lines[:0] = page[:-1]
        return lines

    async def _fetch_lines(self, first: int, last: int) -> list[tuple[int, bytes]]:
        """Return the lines between two places, with their numbers."""
        return [parse_line(raw) for raw in await self._ask("LRANGE", COUNTS_KEY, first, last)]

    async def close(self) -> None:
        """Stop listening."""
        await self._tasks.cancel()
