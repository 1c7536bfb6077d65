"""The connection of a supervisor that reads the directory in the hub. Shared limits use another one.

Writers of the directory decide the answers. An answer that is too long or invalid costs only this connection, and
limits are still shared over theirs.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.config.hub_settings import Hub
from edgeproxy.hub.breaker import Breaker
from edgeproxy.hub.calls import Argument, RedisAnswer
from edgeproxy.hub.errors import HubRefusalError, HubUnavailableError
from edgeproxy.wire.directory_versions import LOG, UnreadableDirectoryError

if TYPE_CHECKING:
    from edgeproxy.hub.redis import Link


class HubReader:
    """A connection to the node that has the directory, opened when it is needed."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._breaker = Breaker()
        self._why = ""
        self._retry_at = 0.0
        """Monotonic second until when a hub that was away is not tried again."""

    async def follow(self, hub: Hub) -> None:
        """Read from the hub of another configuration."""
        if hub != self._hub:
            await self.close()
            self._hub, self._breaker, self._retry_at = hub, Breaker(), 0.0

    async def ask(self, *command: Argument) -> RedisAnswer:
        """Send a command about keys of the directory.

        Raises HubUnavailableError, HubRefusalError, and UnreadableDirectoryError if the command lost the connection.
        """
        link = await self._get_link()
        from redis.exceptions import AskError, ResponseError

        from edgeproxy.hub.redis import format_error

        try:
            return await link.ask(*command)
        except HubUnavailableError as error:
            raise UnreadableDirectoryError(
                f"{command[0]!s} about the directory cost the connection: {error}"
            ) from error
        except ResponseError as error:
            if isinstance(error, AskError):  # Its key is on another node now, or is about to be.
                link.lose(format_error(error))
                raise HubUnavailableError(format_error(error)) from error
            raise HubRefusalError(format_error(error)) from error

    async def _get_link(self) -> "Link":
        """Return the connection, opening it if there is none. Raises HubUnavailableError."""
        async with self._opening:
            if self._link is not None and not self._link.away.done():
                return self._link
            await self.close()
            if not self._hub.is_shared:
                raise HubUnavailableError("there is no hub until the edge is started anew")
            if monotonic() < self._retry_at:
                raise HubUnavailableError(self._why)
            self._breaker.probe()
            from edgeproxy.hub.cluster import open_link
            from edgeproxy.hub.redis import Tls

            try:
                self._link = await open_link(LOG, self._hub.url, Tls.from_settings(self._hub.tls))
            except HubUnavailableError as error:
                now = monotonic()
                self._why, self._retry_at = str(error), now + self._breaker.open(now)
                raise
            self._breaker.close(monotonic())
            return self._link

    async def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
