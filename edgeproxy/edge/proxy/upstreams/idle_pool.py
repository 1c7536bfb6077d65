"""The idle connections to one endpoint, kept for the next requests.

Pure: the caller opens and closes connections. Times are monotonic seconds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeproxy.edge.proxy.upstreams.idle_lifetime import IdleLifetime

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.upstreams.idle_connection import IdleConnection


class IdlePool:
    """The idle connections to one endpoint, `max_idle_connections` at most."""

    __slots__ = ("idle", "idle_lifetime", "max_idle_connections")

    def __init__(self, max_idle_connections: int) -> None:
        self.max_idle_connections = max_idle_connections
        # Last in, first out: the connection used last is the least likely to have been closed meanwhile. The others
        # grow old and are closed.
        self.idle: list[Any] = []
        """Connections to the upstream, with the interface that an exchange uses (`UpstreamSide`)."""
        self.idle_lifetime = IdleLifetime()
        """The estimated idle timeout of the endpoint itself."""

    def release(self, server: "IdleConnection") -> bool:
        """Keep an idle connection for later. Return False if the pool is full; then the caller closes it."""
        if len(self.idle) >= self.max_idle_connections:
            return False
        self.idle.append(server)
        return True

    def forget(self, server: "IdleConnection") -> bool:
        """Remove an idle connection that is closed or closing. Return False if it was not in the pool."""
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
        """Close idle connections before the other side does, and before `idle_timeout`; called twice a second."""
        self.idle_lifetime.sweep(now)
        if self.idle:
            self.idle_lifetime.record_open(now - self.idle[0].idle_since)
        seconds = self.idle_lifetime.seconds
        if seconds < idle_timeout:
            for server in self.idle:
                server.limit_idle(seconds)

    def drain(self) -> "Sequence[IdleConnection]":
        """Keep no connection from now on. Return the idle ones, for closing."""
        idle, self.idle, self.max_idle_connections = self.idle, [], 0
        return idle
