"""The interface of the pool to an idle connection."""

import asyncio
from typing import Protocol


class IdleConnection(Protocol):
    """A connection to an upstream that the pool keeps for the next request."""

    @property
    def idle_since(self) -> float:
        """When its last answer ended, in seconds of the monotonic clock."""

    def limit_idle(self, seconds: float) -> None:
        """Keep it idle for at most these seconds after its last answer."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport to the upstream."""

    def close(self) -> None:
        """Close once everything written has gone."""
