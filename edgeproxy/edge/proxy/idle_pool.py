"""The idle connections to one endpoint, kept for the next requests.

Pure: opening and closing connections is left to the caller. Times are seconds of the monotonic clock.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeproxy.edge.proxy.idle_lifetime import IdleLifetime

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange_sides import IdleConnection


class IdlePool:
    """The idle connections to one endpoint, `max_idle_connections` at most."""

    __slots__ = ("idle", "idle_lifetime", "max_idle_connections")

    def __init__(self, max_idle_connections: int) -> None:
        self.max_idle_connections = max_idle_connections
        # Last in, first out: the connection used last is the one least likely to have been closed meanwhile,
        # and the others are left to grow old and be closed.
        self.idle: list[Any] = []
        """Connections to the upstream, as an exchange needs them (`UpstreamSide`)."""
        self.idle_lifetime = IdleLifetime()
        """The time for which the endpoint itself keeps them."""

    def release(self, server: "IdleConnection") -> bool:
        """Keep an idle connection for later; False where enough are kept, and the caller closes it."""
        if len(self.idle) >= self.max_idle_connections:
            return False
        self.idle.append(server)
        return True

    def forget(self, server: "IdleConnection") -> bool:
        """Forget an idle connection that is closed or closing, lest anybody is given it; False where nobody would have
        been."""
        try:
            self.idle.remove(server)
        except ValueError:
            return False
        return True

    def record_idle_close(self, since: float, now: float) -> None:
        """Record that the other side has closed a connection that was idle since then."""
        oldest = now - self.idle[0].idle_since if self.idle else 0.0
        self.idle_lifetime.record_close(now - since, now, oldest)

    def limit_idle(self, idle_timeout: float, now: float) -> None:
        """Keep no connection until the other side closes it, before `idle_timeout`; called twice a second."""
        self.idle_lifetime.sweep(now)
        if self.idle:
            self.idle_lifetime.record_open(now - self.idle[0].idle_since)
        seconds = self.idle_lifetime.seconds
        if seconds < idle_timeout:
            for server in self.idle:
                server.limit_idle(seconds)

    def drain(self) -> "Sequence[IdleConnection]":
        """Keep no connection from now on: nothing new is sent. Return those that were idle, to be closed."""
        idle, self.idle, self.max_idle_connections = self.idle, [], 0
        return idle
