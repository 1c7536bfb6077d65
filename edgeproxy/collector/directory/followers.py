"""The edges that fetch the directory from this collector, with the version of each.

`keys add --wait` reads when a change has reached all edges. The list is in memory, because each request of an edge
repeats its version.
"""

from collections import OrderedDict
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

ABSENT_SECONDS = 10.0
"""Seconds without a request, or an open one, until an edge is no longer listed."""
FOLLOWERS_MAX = 10_000
"""Most edges in the list. Beyond that the edge with the oldest request is dropped."""


class FollowerVersion(NamedTuple):
    """An edge and the token of its version, or None if it has no version yet."""

    name: str
    token: str | None


class _Follower:
    """The state of an edge: its version, its open requests, and the time of the last request's end."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.open_requests = 0
        self.seen_at = 0.0


class Followers:
    """The edges that follow the directory here."""

    def __init__(self) -> None:
        self._followers: OrderedDict[str, _Follower] = OrderedDict()

    def begin(self, name: str, token: str | None) -> None:
        """Record that an edge requests changes after the version with this token."""
        follower = self._followers.setdefault(name, _Follower())
        self._followers.move_to_end(name)
        follower.token, follower.seen_at = token, monotonic()
        follower.open_requests += 1
        if len(self._followers) > FOLLOWERS_MAX:
            self._followers.popitem(last=False)

    def end(self, name: str) -> None:
        """Record that such a request of an edge has ended."""
        if (follower := self._followers.get(name)) is not None:
            follower.open_requests -= 1
            follower.seen_at = monotonic()

    def list_versions(self) -> Sequence[FollowerVersion]:
        """List the edges with a request now or within ABSENT_SECONDS. Others are removed."""
        due = monotonic() - ABSENT_SECONDS
        gone = [
            name for name, follower in self._followers.items() if follower.open_requests <= 0 and follower.seen_at < due
        ]
        for name in gone:
            del self._followers[name]
        return [FollowerVersion(name, follower.token) for name, follower in sorted(self._followers.items())]
