"""A subscription to a channel of the hub, over a connection of its own, which is made again when it is lost.

Messages may be lost: whoever needs them also looks at the hub now and then.
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
"""Seconds until a connection is made again, at first and at most."""
PING_SECONDS = 5.0
"""Seconds without a word after which the server is asked for one."""


class Subscription:
    """One channel. `on_message` is called for each message, and for each new connection: some may have been lost."""

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
                # It may not, which is no loss that could not be borne: who listens looks by himself too.
                if not self._is_refused:
                    self._is_refused = True
                    self._log.warning("the hub publishes nothing to this edge", why=format_error(error))
            except (HubUnavailableError, RedisError, OSError, TimeoutError, *PARSE_ERRORS):
                pass  # That the hub is away is told by those who ask it.
            tries += 1
            pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2 ** min(tries, 6))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        """Connect, subscribe, and hear; ends by what it raises."""
        url = self._url
        if self._parts.scheme in CLUSTERS:  # What is published on one node is heard on all.
            url = node_url(self._parts, random.choice(self._parts.where))
        async with asyncio.timeout(2 * ANSWER_SECONDS_MAX):
            url = await find_primary(url, self._tls)
        connection = create_connection(url, self._tls, protocol=2)  # In which a message is an answer as any other.
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
        """Ping the server at intervals; disconnect from one that stays silent."""
        while monotonic() - self._last_message_at < 2 * PING_SECONDS:
            await asyncio.sleep(PING_SECONDS)
            try:
                await connection.send_command("PING", check_health=False)
            except (RedisError, OSError):
                break
        await connection.disconnect(nowait=True)
