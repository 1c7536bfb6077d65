"""The customer directory as edges fetch it."""

from typing import Annotated

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import in_query
from edgeproxy.config.units import Whole

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
