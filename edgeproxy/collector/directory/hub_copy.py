"""The copy of a log in the hub, line by line as it is, for edges that follow the directory there."""

from time import monotonic
from typing import Protocol

from redis.exceptions import ResponseError

from edgeproxy.collector.directory.hub_push import RETRY_SECONDS, Refused, commit, stage
from edgeproxy.config.models import Hub
from edgeproxy.hub.calls import read_script
from edgeproxy.hub.cluster import offer_functions, open_link
from edgeproxy.hub.redis import HubUnavailableError, Link, Tls
from edgeproxy.wire.directory_versions import LOG, TIME, Line, UnreadableDirectoryError, parse_line, parts_key

__all__ = ["HubUnavailableError", "Log", "Mirror"]


OFFER_SECONDS = 60.0
"""Seconds after which the hub is offered the functions of edges again: a node that keeps nothing on disk loses them."""


class Log(Protocol):
    """Where the lines come from."""

    async def lines(self) -> list[Line]:
        """All that are still needed."""

    async def part(self, token: str, place: int) -> bytes | None:
        """A part of a version."""


class Mirror:
    """One hub, and what it is known to have."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link: Link | None = None
        self._has: tuple[bytes, bytes] = (b"", b"")
        """The line of the newest version there, and that of the time."""
        self._offered_at = float("-inf")

    async def follow(self, newest: Line, time: bytes, log: Log) -> None:
        """Have the hub know this version as the newest, and the time.

        Raises HubUnavailableError, ResponseError and UnreadableDirectoryError.
        """
        if self._link is not None and self._link.away.done():
            await self._link.close()
            self._link, self._has = None, (b"", b"")
        if self._has == (newest.raw, time):
            return
        tls = Tls.from_settings(self._hub.tls)
        if self._link is None:
            self._link = await open_link(LOG, self._hub.url, tls, deadline=RETRY_SECONDS)
            self._offered_at = float("-inf")
        if monotonic() - self._offered_at >= OFFER_SECONDS:
            self._offered_at = monotonic()
            await offer_functions(self._hub.url, tls)
        ask = self._link.ask
        try:
            last = await ask("LINDEX", LOG, -1) or b""
            if last != newest.raw:
                await self._copy(last, time, log)
                last = await ask("LINDEX", LOG, -1) or b""
            if last == newest.raw:
                await ask("EVAL", read_script("time"), 2, LOG, TIME, last, time)
                self._has = newest.raw, time
        except Refused as again:
            raise UnreadableDirectoryError(str(again)) from again
        except ResponseError:
            await self._link.close()
            self._link = None
            raise

    async def _copy(self, last: bytes, time: bytes, log: Log) -> None:
        """Copy what the hub lacks; all where what it has is not of this log."""
        assert self._link is not None
        ask = self._link.ask
        lines = await log.lines()
        raws = [line.raw for line in lines]
        if last in raws:
            lines = lines[raws.index(last) + 1 :]
        for line in lines:
            leaving: list[str] = []
            parts = [await log.part(line.version.token, place) for place in range(line.version.parts)]
            whole = [part for part in parts if part is not None]
            if len(whole) != len(parts):
                return  # It has left meanwhile: the next look finds the log as it is then.
            if line.version.whole and last:
                leaving = await tokens(self._link)
            await ask("DEL", parts_key(line.version.token))
            await stage(ask, line.version.token, whole)
            await commit(ask, last, line, time if line is lines[-1] else b"", leaving)
            last = line.raw


async def tokens(link: Link) -> list[str]:
    """The tokens of the versions in the hub, as far as they can be read."""
    found = []
    for raw in await link.ask("LRANGE", LOG, 0, -1):
        try:
            found.append(parse_line(raw).version.token)
        except UnreadableDirectoryError:
            continue
    return found
