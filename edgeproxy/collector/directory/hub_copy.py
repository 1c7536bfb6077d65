"""The copy of a log in the hub, with identical lines, for edges that follow the directory there."""

from contextlib import suppress
from time import monotonic
from typing import Protocol

from redis.exceptions import ResponseError

from edgeproxy.collector.directory.hub_push import RETRY_SECONDS, PushRejectedError, commit_version, stage_parts
from edgeproxy.config.hub_settings import Hub
from edgeproxy.hub import calls
from edgeproxy.hub.cluster import offer_functions, open_link
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import Link, Tls, call_function
from edgeproxy.wire import directory_versions
from edgeproxy.wire.directory_versions import LOG, TIME, Line, UnreadableDirectoryError, parse_line

__all__ = ["DirectorySource", "HubMirror", "HubUnavailableError"]


OFFER_SECONDS = 60.0
"""Seconds until the edges' functions are loaded into the hub again. A node without persistence loses them."""


class DirectorySource(Protocol):
    """The source of the lines."""

    async def list_lines(self) -> list[Line]:
        """List all lines that are still needed."""

    async def find_part(self, token: str, place: int) -> bytes | None:
        """Return a part of a version."""


class HubMirror:
    """A hub, with its last known content."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link: Link | None = None
        self._has: tuple[bytes, bytes] = (b"", b"")
        """The hub's line of the newest version, and its line of the time."""
        self._offered_at = float("-inf")

    async def synchronize(self, newest: Line, time: bytes, log: DirectorySource) -> None:
        """Make this version the newest one in the hub, and update the time.

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
                await self._copy_missing(last, time, log)
                last = await ask("LINDEX", LOG, -1) or b""
            if last == newest.raw:
                await call_function(ask, calls.TIME, [LOG, TIME], [last, time])
                self._has = newest.raw, time
        except PushRejectedError as error:
            raise UnreadableDirectoryError(str(error)) from error
        except ResponseError:
            await self._link.close()
            self._link = None
            raise

    async def close(self) -> None:
        """Close the link to the hub."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _copy_missing(self, last: bytes, time: bytes, log: DirectorySource) -> None:
        """Copy missing lines to the hub, or all lines if the hub has another log."""
        assert self._link is not None
        ask = self._link.ask
        lines = await log.list_lines()
        raws = [line.raw for line in lines]
        if last in raws:
            lines = lines[raws.index(last) + 1 :]
        for line in lines:
            leaving: list[str] = []
            parts = [await log.find_part(line.version.token, place) for place in range(line.version.parts)]
            whole = [part for part in parts if part is not None]
            if len(whole) != len(parts):
                return  # The version was removed meanwhile. The next run uses the current log.
            if line.version.whole and last:
                leaving = await fetch_tokens(self._link)
            await stage_parts(ask, line.version.token, whole)
            await commit_version(ask, last, line, time if line is lines[-1] else b"", leaving)
            last = line.raw


async def fetch_tokens(link: Link) -> list[str]:
    """Return the tokens of the readable versions in the hub."""
    try:
        lines = await directory_versions.fetch_raw_lines(link.ask)
    except UnreadableDirectoryError:
        return []
    tokens = []
    for raw in lines:
        with suppress(UnreadableDirectoryError):
            tokens.append(parse_line(raw).version.token)
    return tokens
