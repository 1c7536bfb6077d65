"""The customer directory, for edges that follow it here."""

import re

from aiohttp import web

from edgeproxy.collector.api.directory.models import DirectoryQuery
from edgeproxy.collector.api.endpoint import BYTES, Call, Nothing, Query
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.responses import answer, problem

VERSION_TOKEN, PART_NUMBER = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9]{1,9}")


class DirectoryHandlers(Handlers):
    """Handlers of the directory."""

    async def fetch_changes(self, call: Call[DirectoryQuery, Nothing]) -> web.Response:
        """Send the lines after a version, once there are some or the time is over."""
        publisher = self._resources.publisher
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

    async def fetch_part(self, call: Call[Query, Nothing]) -> web.Response:
        """Send a part of a version."""
        publisher, token, place = self._resources.publisher, call.path("token"), call.path("place")
        body = None
        if publisher is not None and VERSION_TOKEN.fullmatch(token) and PART_NUMBER.fullmatch(place):
            body = await publisher.log.find_part(token, int(place))
        if body is None:
            return problem(404, "there is no such part")
        return web.Response(body=body, content_type=BYTES)
