"""The time for which an endpoint keeps an idle connection, as learnt from those that it has closed.

A request that meets the closing is lost. One that may be sent twice goes out again; all others depend on it that no
connection is lent about the time at which the endpoint closes it.
"""

from collections import deque

from edgeproxy.edge.http1.keep_alive import subtract_margin

CLOSINGS = 3
"""Closings that have to agree."""

SEPARATE_SECONDS = 0.5
"""Closings that are nearer to each other are one: an endpoint that ends closes all at once, whatever their age."""

AGREE_RATIO, AGREE_SECONDS = 1.5, 0.05
"""The ratio and the seconds by which they may differ: some servers look only once a second who is idle."""

FORGET_SECONDS = 300.0
"""Seconds for which it counts. Connections are then kept as long as is configured, until it is learnt anew."""

SEEN_SECONDS = 0.5
"""Seconds for which an endpoint of which nothing is known is taken to keep connections."""

TRUST_RATIO = 0.8
"""The share of the time seen that is relied on."""


class IdleLifetime:
    """The idle connections of one endpoint, as they were seen. Times are seconds of the monotonic clock."""

    __slots__ = ("_closings", "_until", "seconds", "seen_seconds")

    def __init__(self) -> None:
        self.seconds = float("inf")
        """Seconds for which a connection may be kept idle: somewhat less than the endpoint keeps it."""
        self.seen_seconds = SEEN_SECONDS
        """Seconds for which connections were idle, and still open, the last that was closed included."""
        self._closings: deque[tuple[float, float]] = deque(maxlen=CLOSINGS)
        """(when, idle for how long) of the last."""
        self._until = 0.0

    @property
    def trusted_seconds(self) -> float:
        """Seconds for which a connection may have been idle that is given what cannot be sent again."""
        return self.seen_seconds * TRUST_RATIO

    def record_open(self, idle: float) -> None:
        """Record that a connection is open that has been idle for so long."""
        self.seen_seconds = max(self.seen_seconds, idle)

    def record_close(self, idle: float, now: float, oldest: float = 0.0) -> None:
        """Record that the endpoint has closed a connection that was idle for so long; `oldest`: another one is, and is
        open."""
        self.seen_seconds = min(self.seen_seconds, idle)
        if oldest > idle * AGREE_RATIO + AGREE_SECONDS:
            return  # It keeps them for longer than that, and had another reason.
        closings = self._closings
        if closings and now - closings[-1][0] < SEPARATE_SECONDS:
            return
        closings.append((now, idle))
        shortest = min(each for _, each in closings)
        longest = max(each for _, each in closings)
        if len(closings) == CLOSINGS and longest <= shortest * AGREE_RATIO + AGREE_SECONDS:
            self.seconds = subtract_margin(shortest)
            self._until = now + FORGET_SECONDS

    def sweep(self, now: float) -> None:
        """Forget what was learnt too long ago; called twice a second."""
        if 0.0 < self._until <= now:
            self.seconds, self._until = float("inf"), 0.0
            self._closings.clear()
