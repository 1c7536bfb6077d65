"""The directory in the hub's lists, with messages that announce more (wire/directory_versions.py has the format)."""

import asyncio

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge.directory.lineage import OversizedLogError, check_signature, create_lineage_error
from edgeproxy.edge.directory.transport import News
from edgeproxy.hub.redis import Tls
from edgeproxy.hub.subscription import Subscription
from edgeproxy.wire.directory_signatures import TrustedKeys
from edgeproxy.wire.directory_versions import (
    LINE_BYTES_MAX,
    LINES_MAX,
    LOG,
    NEWS,
    TIME,
    UNSIGNED,
    CallHub,
    Line,
    UnreadableDirectoryError,
    create_part_fetcher,
    parse_line,
)

LINES_AT_ONCE = 8
"""Lines of the log that are requested together: each may be as long as the hub lets a writer make it."""


class HubLog:
    """The transport `hub`. `ask` sends it commands; a subscription announces more."""

    name = "hub"

    def __init__(self, ask: CallHub, hub: Hub, trust: TrustedKeys | None) -> None:
        self._ask = ask
        self._trust = trust
        self._fetch = create_part_fetcher(ask)
        self._news = asyncio.Event()
        self._tasks = Tasks()
        self._tasks.start(
            "directory news", Subscription(hub.url, Tls.from_settings(hub.tls), NEWS, self._news.set).run()
        )

    async def fetch_news(self, token: str | None, number: int) -> News:
        """See Transport. The log is read backwards, and no further than pushes can have written it.

        Raises RejectedVersionError too.
        """
        self._news.clear()
        # In this order: then the log has the version that was the newest when the time was signed.
        time = await self._ask("LINDEX", TIME, -1)
        _check_length("the signed time", time)
        last = await self._ask("LINDEX", LOG, -1)
        if last is None:
            return News((), False, time)
        _check_length("the newest line", last)
        newest = parse_line(last)
        if newest.version.token == token:
            return News((), True, time)
        check_signature(newest, self._trust)
        lines = [newest]
        while not lines[0].version.whole:
            missing = LINES_AT_ONCE if token is None else lines[0].version.number - number
            older = await self._fetch_older(len(lines), missing if 0 < missing < LINES_AT_ONCE else LINES_AT_ONCE)
            for line in reversed(older):
                if line.version.token == token:
                    return News(tuple(line.raw for line in lines), True, time)
                await self._check_order(line, lines[0], last)
                lines.insert(0, line)
                if line.version.whole:
                    break
            if not older:
                break
            if len(lines) > LINES_MAX:
                raise OversizedLogError(f"the log has more than {LINES_MAX} lines, which no push has written")
        return News(tuple(line.raw for line in lines), False, time)

    async def _fetch_older(self, known: int, count: int) -> list[Line]:
        """Return lines before the last `known` ones.

        They are fetched one by one, so that no answer is longer than the longest line that a writer can make.
        """
        places = range(-known - count, -known)
        raws = await asyncio.gather(*(self._ask("LINDEX", LOG, place) for place in places))
        lines = []
        for raw in raws:
            _check_length("a line", raw)
            if raw is not None:
                lines.append(parse_line(raw))
        return lines

    async def _check_order(self, older: Line, newer: Line, last: bytes) -> None:
        """Raise an error if two lines of the log do not follow one another."""
        if newer.version.form == UNSIGNED or newer.version.before == older.hash:
            return
        if await self._ask("LINDEX", LOG, -1) != last:
            raise UnreadableDirectoryError("somebody has pushed meanwhile: the log is read again")
        raise create_lineage_error(newer, older.version.number)

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


def _check_length(what: str, line: bytes | None) -> None:
    """Raise OversizedLogError if a line is longer than any that was pushed."""
    if line is not None and len(line) > LINE_BYTES_MAX:
        raise OversizedLogError(f"{what} of the log has {len(line)} bytes, which no push has written")
