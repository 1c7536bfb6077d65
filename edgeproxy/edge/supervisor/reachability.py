"""Reachability of addresses without health checks, for `GET /status` and the metrics.

Workers count failed connections. Once an upstream without health checks has more of these, the supervisor connects to
each of its addresses, and again every few seconds until all accept connections. The choice of an endpoint does not
depend on this: health checks and ejection decide it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

from edgeproxy.base import log

CHECK_SECONDS = 5.0
CONNECT_SECONDS = 2.0


class ConnectTarget(NamedTuple):
    """An address of an upstream and its port."""

    upstream: str
    address: str
    port: int


FetchRefusals = Callable[[], Awaitable[Mapping[str, int]]]
"""Returns the number of connections to each upstream that have failed so far."""


class Reachability:
    """The addresses that accept no connections, and why. `places` yields the addresses to check."""

    def __init__(
        self, refused: FetchRefusals, places: Callable[[], Iterable[ConnectTarget]], every: float = CHECK_SECONDS
    ) -> None:
        self._refused, self._places, self._every = refused, places, every
        self._counted: Mapping[str, int] = {}
        self._why: dict[ConnectTarget, str] = {}
        self._log = log.get_logger()

    def why(self, place: ConnectTarget) -> str:
        """Return why an address accepts no connections; empty if it does, or if no request has failed to connect."""
        return self._why.get(place, "")

    async def watch(self) -> None:
        """Check every few seconds, for ever."""
        while True:
            await self.check()
            await asyncio.sleep(self._every)

    async def check(self) -> None:
        """Connect to the addresses that may accept no connections."""
        places = list(self._places())
        if not places:
            return
        before, self._counted = self._counted, await self._refused()
        failing = {name for name, count in self._counted.items() if count > before.get(name, 0)}
        failing.update(place.upstream for place in self._why)
        suspects = [place for place in places if place.upstream in failing]
        failures = dict(zip(suspects, await asyncio.gather(*map(try_connect, suspects)), strict=True))
        for place, why in failures.items():
            if why and place not in self._why:
                self._log.warning("upstream address takes no connections", why=why, **place._asdict())
            elif place in self._why and not why:
                self._log.info("upstream address takes connections again", **place._asdict())
        self._why = {place: why for place, why in failures.items() if why}


async def try_connect(place: ConnectTarget) -> str:
    """Return why no connection can be made; empty if one was made, and closed."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(place.address, place.port)
    except TimeoutError:
        return f"no connection within {CONNECT_SECONDS:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    writer.close()
    return ""
