"""A subscription to a channel of the hub over a separate connection, which reconnects after a loss.

Messages may be lost, so subscribers also check the hub at intervals.
"""

import asyncio
import math
import random
from collections.abc import Callable
from time import monotonic

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import CLUSTERS, HubUrl
from edgeproxy.hub.bounds import format_invalid_answer
from edgeproxy.hub.cluster import node_url
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import ANSWER_SECONDS_MAX, PARSE_ERRORS, Tls, create_connection, find_primary, format_error

RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 30.0
"""Seconds before the first reconnection, and their maximum before later ones."""
PING_SECONDS = 5.0
"""Seconds of silence before the server is pinged."""


class Subscription:
    """One channel. `on_message` is called for each message and for each new connection, as messages may be lost."""

    def __init__(self, url: str, tls: Tls, channel: bytes, on_message: Callable[[], None]) -> None:
        self._parts = HubUrl.parse(url)
        self._url = url
        self._tls = tls
        self._channel = channel
        self._on_message = on_message
        self._log = log.get_logger()
        self._is_refused = False
        self._last_message_at = 0.0

    async def run(self) -> None:
        """Listen until cancelled."""
        tries = 0
        while True:
            try:
                await self._listen()
            except ResponseError as error:
                # The user may not subscribe. That is acceptable, because subscribers also check at intervals.
                if not self._is_refused:
                    self._is_refused = True
                    self._log.warning("the hub publishes nothing to this edge", why=format_error(error))
            except (HubUnavailableError, RedisError, OSError, TimeoutError, *PARSE_ERRORS):
                pass  # Other users of the hub report that it is lost.
            tries += 1
            pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2 ** min(tries, 6))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        """Connect, subscribe and receive messages, until an exception is raised."""
        url = self._url
        if self._parts.scheme in CLUSTERS:  # All nodes receive messages published on one.
            url = node_url(self._parts, random.choice(self._parts.where))
        async with asyncio.timeout(2 * ANSWER_SECONDS_MAX):
            url = await find_primary(url, self._tls)
        connection = create_connection(url, self._tls, protocol=2)  # Messages are ordinary answers in it.
        tasks = Tasks()
        try:
            async with asyncio.timeout(2 * ANSWER_SECONDS_MAX):
                await connection.connect()  # type: ignore[no-untyped-call]
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response(disable_decoding=True)
            self._on_message()
            self._last_message_at = monotonic()
            tasks.start("directory ping", self._ping(connection))
            while True:
                message = await connection.read_response(disable_decoding=True, timeout=math.inf)
                self._last_message_at = monotonic()
                if not isinstance(message, list) or len(message) < 2:
                    raise HubUnavailableError(format_invalid_answer(message, "SUBSCRIBE"))
                if message[0] == b"message":
                    self._on_message()
        finally:
            await tasks.cancel()
            try:
                await connection.disconnect(nowait=True)
            except (RedisError, OSError):
                pass

    async def _ping(self, connection: Connection) -> None:
        """Ping the server at intervals, and disconnect if it stays silent."""
        while monotonic() - self._last_message_at < 2 * PING_SECONDS:
            await asyncio.sleep(PING_SECONDS)
            try:
                await connection.send_command("PING", check_health=False)
            except (RedisError, OSError):
                break
        await connection.disconnect(nowait=True)
