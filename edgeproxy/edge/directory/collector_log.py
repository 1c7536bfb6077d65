"""The directory as the collector publishes it, over HTTP: each request waits there until there is news."""

import asyncio
import secrets
from time import monotonic

import orjson

from edgeproxy.config.edge.usage import Usage
from edgeproxy.edge.directory.collector_client import WAIT_SECONDS, CollectorClient
from edgeproxy.edge.directory.transport import News
from edgeproxy.wire.directory_versions import UnreadableDirectoryError

REST_SECONDS = 0.05
"""Minimum of seconds between two requests."""


class CollectorLog:
    """The transport `collector`: the collector of `usage`, with its token."""

    name = "collector"

    def __init__(self, usage: Usage, region: str) -> None:
        self._client = CollectorClient(usage, f"{region}.{secrets.token_hex(4)}")
        self._is_caught_up = False
        """True if all published versions are known, so that the next request waits for more."""
        self._fetched_at = 0.0

    async def fetch_news(self, token: str | None, number: int) -> News:
        """See Transport."""
        wait = WAIT_SECONDS if self._is_caught_up and token is not None else 0
        self._is_caught_up = False
        params = {"wait": str(wait)} if token is None else {"after": token, "wait": str(wait)}
        self._fetched_at = monotonic()
        body = await self._client.get("", params)
        try:
            document = orjson.loads(body)
            follows, time = document["follows"], document["time"]
            lines = tuple([line.encode() for line in document["lines"]])
            news = News(lines, follows is True, None if time is None else time.encode())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UnreadableDirectoryError("the collector's answer cannot be read: is it one?") from error
        return news

    async def fetch_part(self, token: str, place: int) -> bytes | None:
        """See Transport."""
        return await self._client.get(f"/parts/{token}/{place}", {}, missing=True)

    async def wait_for_news(self, seconds: float) -> None:
        """See Transport: the next fetch waits in the collector."""
        self._is_caught_up = True
        await asyncio.sleep(max(0.0, REST_SECONDS - (monotonic() - self._fetched_at)))

    async def close(self) -> None:
        """See Transport."""
        await self._client.close()
