"""The connection to one Redis of a hub, which is opened again whenever it is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from redis.exceptions import ResponseError

from edgeproxy.base import log
from edgeproxy.config.hub_settings import HubUrl
from edgeproxy.hub.breaker import Breaker
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.functions import is_function_missing
from edgeproxy.hub.redis import FunctionsMissingError, Link, Tls, format_error

HEARTBEAT_SECONDS = 2.0
"""Seconds between heartbeats, plus or minus a fifth. The hub counts hosts by them, and hosts notice lost hosts."""
LOG_SILENCE_SECONDS = 60.0
"""Seconds between two log lines about faults of this program."""

SendHeartbeat = Callable[["Node", Link], Awaitable[None]]
"""A heartbeat over a link. Raises HubUnavailableError or ResponseError if the node is unusable."""


class Node:
    """One Redis of a hub. `run` keeps it connected, and calls `changed` when it is connected, lost or not reached."""

    def __init__(self, url: str, tls: Tls, send_heartbeat: SendHeartbeat, changed: Callable[["Node"], None]) -> None:
        """`url`: redis:// or rediss://, as `config.hub_settings` reads it."""
        self.at = HubUrl.parse(url).where[0]
        """HOST:PORT."""
        self._url = url
        self._tls = tls
        self._send_heartbeat = send_heartbeat
        self._changed = changed
        self.link: Link | None = None
        """The connection to the node, if there is one."""
        self.why = "not reached yet"
        """The reason why there is no connection."""
        self.tried = False
        """True once the first attempt to connect has ended."""
        self.lacks_functions = False
        """True if the last attempt failed because the functions of this version are missing."""
        self.breaker = Breaker()
        self._log = log.RateLimitedLog(LOG_SILENCE_SECONDS)

    async def run(self) -> None:
        """Connect to the node, and reconnect, until cancelled."""
        while True:
            self.breaker.probe()
            try:
                self.why = await self._stay_connected()
            except Exception as error:  # Any error leads to another attempt.
                self._log.error("a connection to the hub failed", self.at, exc_info=error)
                self.why = repr(error)
            finally:
                self.link = None
            self.tried = True
            pause = self.breaker.open(monotonic())
            self._changed(self)
            await asyncio.sleep(pause)

    async def _stay_connected(self) -> str:
        """Connect and stay connected until the node is lost. Return the reason of the loss."""
        lacks_functions = False
        try:
            link = await Link.open(self._url, self._tls)
        except HubUnavailableError as error:
            self.lacks_functions = False
            return str(error)
        try:
            await self._send_first_heartbeat(link)
            self.link, self.tried, self.lacks_functions = link, True, False
            self.breaker.close(monotonic())
            self._changed(self)
            while not link.away.done():
                await asyncio.wait([link.away], timeout=HEARTBEAT_SECONDS * random.uniform(0.8, 1.2))
                await self._send_heartbeat(self, link)
        except HubUnavailableError as error:
            lacks_functions = isinstance(error, FunctionsMissingError)
            return str(error)
        except ResponseError as error:
            # The node refuses writes or has lost the functions. A new connection may have them again.
            link.lose(format_error(error))
            return format_error(error)
        finally:
            self.link, self.lacks_functions = None, lacks_functions
            await link.close()
        return link.away.result()

    async def _send_first_heartbeat(self, link: Link) -> None:
        """Send the first heartbeat over a link. If the functions are missing, load them and send another.

        A user without permission to load them can use the node only if they exist already. They are loaded only if
        missing, so that normally no refusal is in the log of Redis.
        """
        try:
            await self._send_heartbeat(self, link)
        except ResponseError as error:
            if not is_function_missing(error):
                raise
            await link.load_functions()
            await self._send_heartbeat(self, link)
