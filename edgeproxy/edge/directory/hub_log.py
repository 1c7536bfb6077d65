"""The directory in the hub's lists, which publishes when there is more (wire/directory_versions.py says which)."""

import asyncio

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge.directory.transport import News
from edgeproxy.hub.redis import Tls
from edgeproxy.hub.subscription import Subscription
from edgeproxy.wire.directory_versions import LOG, NEWS, TIME, CallHub, create_part_fetcher, parse_version


class HubLog:
    """The transport `hub`. `ask` sends it commands; a subscription says that there is more."""

    name = "hub"

    def __init__(self, ask: CallHub, hub: Hub) -> None:
        self._ask = ask
        self._fetch = create_part_fetcher(ask)
        self._news = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(
            "directory news", Subscription(hub.url, Tls.from_settings(hub.tls), NEWS, self._news.set).run()
        )

    async def fetch_news(self, token: str | None, number: int) -> News:
        """See Transport. Only new lines of a long log are read."""
        self._news.clear()
        # In this order: what was the newest when the time was signed is in the log then.
        time = await self._ask("LINDEX", TIME, -1)
        last = await self._ask("LINDEX", LOG, -1)
        if last is None:
            return News((), False, time)
        newest = parse_version(last)
        if newest.token == token:
            return News((), True, time)
        if token is not None and newest.number > number:
            lines = await self._ask("LRANGE", LOG, number - newest.number - 1, -1)
            if lines and parse_version(lines[0]).token == token:
                return News(tuple(lines[1:]), True, time)
        lines = await self._ask("LRANGE", LOG, 0, -1)
        tokens = [parse_version(line).token for line in lines]
        follows = token in tokens
        return News(tuple(lines[tokens.index(token) + 1 :] if follows and token else lines), follows, time)

    async def fetch_part(self, token: str, place: int) -> bytes | None:
        """See Transport."""
        return await self._fetch(token, place)

    async def wait_for_news(self, seconds: float) -> None:
        """See Transport."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        """See Transport."""
        await self._tasks.cancel()
