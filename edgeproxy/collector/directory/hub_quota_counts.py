"""The hub's copy of the ledger's quota counts, for edges that use the hub."""

from collections.abc import Sequence

from redis.exceptions import ResponseError

from edgeproxy.collector.directory.hub_push import RETRY_SECONDS
from edgeproxy.config.hub_settings import Hub
from edgeproxy.hub import calls
from edgeproxy.hub.calls import Argument
from edgeproxy.hub.cluster import open_link
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.redis import Link, Tls, call_function
from edgeproxy.wire.quota_counts import COUNTS_KEY, NEWS_CHANNEL, format_line, parse_line

LIST_FULL = "LISTFULL"
"""The prefix of the function's error if these lines do not fit (scripts/counted.lua)."""
LINES_MAX = 50_000
"""Most lines of the list. Beyond that it is replaced by the latest line of each quota."""

__all__ = ["HubUnavailableError", "QuotaCountMirror", "ResponseError"]


class QuotaCountMirror:
    """A hub that a collector writes to.

    Raises HubUnavailableError, ResponseError, and ValueError if other programs have written to its list.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._link: Link | None = None
        self._last = b""
        self._is_full = False

    async def fetch_newest(self) -> int:
        """Return the number of the hub's latest change, or 0 if it needs all changes."""
        if self._link is None or self._link.away.done():
            await self.close()
            self._link = await open_link(
                COUNTS_KEY, self._hub.url, Tls.from_settings(self._hub.tls), deadline=RETRY_SECONDS
            )
        self._last = await self._link.ask("LINDEX", COUNTS_KEY, -1) or b""
        return 0 if self._is_full or not self._last else parse_line(self._last)[0]

    async def append_changes(self, changes: Sequence[tuple[int, bytes]], *, replace: bool) -> None:
        """Append changes after the one that `fetch_newest` returned, or replace the list with them."""
        assert self._link is not None
        lines = [format_line(seq, body) for seq, body in changes]
        arguments: list[Argument] = [self._last, int(replace), NEWS_CHANNEL, *lines]
        try:
            self._is_full = await call_function(self._link.ask, calls.COUNTED, [COUNTS_KEY], arguments) > LINES_MAX
        except ResponseError as error:
            self._is_full = self._is_full or LIST_FULL in str(error)
            raise

    async def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()
