"""The customer directory for edges that follow it over HTTP."""

import re
from typing import Annotated

from aiohttp import web
from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import BYTES, EDGE, READERS, Call, Header, Nothing, Query, get
from edgeproxy.collector.api.field_types import in_query
from edgeproxy.collector.api.group import Group, Handlers, PathParameter
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.config.units import Whole
from edgeproxy.wire.directory_versions import FOLLOWER_FIELD

DIRECTORY_WAIT_SECONDS_MAX = 30
"""Seconds that an edge may wait for a version of the directory."""


class DirectoryQuery(Query):
    """The version that the edge has, and the seconds to wait for a later one."""

    after: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None
    """The token of the version that the edge has; by default none."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """The seconds to wait if there is no later version yet."""


class DirectoryChanges(TypedDict):
    """The changes of the customer directory since the version that the edge has."""

    follows: bool
    """True if the log has the version named in the query."""
    lines: list[str]
    """The signed lines after that version if the log has it; otherwise all lines."""
    time: str | None
    """A signed time when a version was the newest one; null if there is none."""


class DirectoryFollower(TypedDict):
    """An edge that fetches the directory from this collector."""

    name: str
    """The region of the edge, and eight digits that the edge chose for this connection."""
    version: int | None
    """The number of the version that the edge has; null if it has none that is still in the log."""


class DirectoryFollowers(TypedDict):
    """The newest version of the directory, and the version that each edge has."""

    version: int | None
    """The number of the newest version; null if there is none yet."""
    pending: bool
    """True if changes are waiting to become a version."""
    hub: bool
    """True if the directory is also copied to a hub. Edges that follow it there are not listed."""
    followers: list[DirectoryFollower]
    """The edges that fetch the directory from the answering collector, by name."""


NO_DIRECTORY = "this collector has no directory: write directory: {key: FILE}"
FOLLOWER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.[0-9a-f]{8}")
VERSION_TOKEN, PART_NUMBER = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9]{1,9}")


class DirectoryHandlers(Handlers):
    """Handlers of the directory."""

    @get(
        "/v1/directory",
        roles=EDGE,
        headers={
            FOLLOWER_FIELD: Header({"type": "string", "maxLength": 73}, "A name for the edge in the list of followers.")
        },
        errors={404: "This collector publishes no directory."},
    )
    async def fetch_changes(self, call: Call[DirectoryQuery, Nothing]) -> DirectoryChanges:
        """Fetch the signed lines of the directory after a version. The answer waits until there are some."""
        publisher = self._resources.publisher
        if publisher is None:
            raise ProblemError(request_codes.NOT_CONFIGURED, NO_DIRECTORY)
        after = call.query.after
        follower = call.request.headers.get(FOLLOWER_FIELD, "")
        follower = follower if FOLLOWER_NAME.fullmatch(follower) else ""
        if follower:
            publisher.followers.begin(follower, after)
        try:
            if after is not None and call.query.wait:
                await publisher.wait_for_change(after, call.query.wait)
        finally:
            if follower:
                publisher.followers.end(follower)
        follows, lines = await publisher.log.list_lines_after(after)
        time = publisher.time
        return {
            "follows": follows,
            "lines": [line.decode() for line in lines],
            "time": None if time is None else time.decode(),
        }

    @get("/v1/directory/followers", roles=READERS, errors={404: "This collector publishes no directory."})
    async def list_followers(self, _: Call[Query, Nothing]) -> DirectoryFollowers:
        """List the edges that fetch the directory here, and the version that each of them has."""
        publisher = self._resources.publisher
        if publisher is None:
            raise ProblemError(request_codes.NOT_CONFIGURED, NO_DIRECTORY)
        pending = await publisher.has_pending_changes()  # First, so that a version created meanwhile is in the log.
        versions = [line.version for line in await publisher.log.list_lines()]
        numbers = {version.token: version.number for version in versions}
        followers: list[DirectoryFollower] = [
            {"name": version.name, "version": numbers.get(version.token or "")}
            for version in publisher.followers.list_versions()
        ]
        newest = versions[-1].number if versions else None
        has_hub = publisher.hub is not None
        return {"version": newest, "pending": pending, "hub": has_hub, "followers": followers}

    @get("/v1/directory/parts/{token}/{place}", roles=EDGE, response_media=(BYTES,))
    async def fetch_part(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a part of a version of the directory."""
        publisher, token, place = self._resources.publisher, call.path("token"), call.path("place")
        body = None
        if publisher is not None and VERSION_TOKEN.fullmatch(token) and PART_NUMBER.fullmatch(place):
            body = await publisher.log.find_part(token, int(place))
        if body is None:
            raise ProblemError(operation_codes.DIRECTORY_PART_NOT_FOUND, "there is no such part")
        return web.Response(body=body, content_type=BYTES)


GROUP = Group(
    "directory",
    "The customer directory for edges.",
    DirectoryHandlers,
    parameters={
        "place": PathParameter("The number of the part, from the directory's lines."),
        "token": PathParameter("The name of the token; in paths of the directory, the token of a version."),
    },
)
