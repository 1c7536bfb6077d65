"""The directory, for edges that follow it here."""

import re

from aiohttp import web

from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import DirectoryQuery
from edgeproxy.collector.api.responses import answer, problem
from edgeproxy.collector.directory.publisher import Publisher

TOKEN, PLACE = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9]{1,9}")


class DirectoryHandlers:
    """Tells what was published."""

    def __init__(self) -> None:
        self.publisher: Publisher | None = None
        """Who publishes; None where nobody does."""

    async def news(self, call: Call[DirectoryQuery, Nothing]) -> web.Response:
        """Send what there is behind a version, once there is something or the time is over."""
        publisher = self.publisher
        if publisher is None:
            return problem(404, "this collector has no directory: write directory: {key: FILE}")
        after = call.query.after
        if after is not None and call.query.wait:
            await publisher.wait_for_change(after, call.query.wait)
        follows, lines = await publisher.log.list_lines_after(after)
        time = publisher.time
        return answer(
            200,
            {
                "follows": follows,
                "lines": [line.decode() for line in lines],
                "time": None if time is None else time.decode(),
            },
        )

    async def part(self, call: Call[Query, Nothing]) -> web.Response:
        """Send a part of a version."""
        token, place = call.path("token"), call.path("place")
        if self.publisher is None or not TOKEN.fullmatch(token) or not PLACE.fullmatch(place):
            return problem(404, "there is no such part")
        body = await self.publisher.log.find_part(token, int(place))
        if body is None:
            return problem(404, "there is no such part")
        return web.Response(body=body, content_type="application/octet-stream")
