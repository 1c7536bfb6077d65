"""Estimates of the idle timeout of an endpoint, from the connections that it closed.

A request that meets the closing of its connection is lost. The edge sends it again if a repetition is safe. All other
requests depend on the edge not using a connection about when the endpoint closes it.
"""

from collections import deque

from edgeproxy.edge.http1.keep_alive import subtract_margin

CLOSINGS = 3
"""Closings that must agree."""

SEPARATE_SECONDS = 0.5
"""Closings that are nearer to each other count as one: an endpoint that shuts down closes all at once, whatever their
age.
"""

AGREE_RATIO, AGREE_SECONDS = 1.5, 0.05
"""Agreeing closings may differ by this ratio and these seconds: some servers check idle connections only once a
second.
"""

FORGET_SECONDS = 300.0
"""An estimate is valid for these seconds. After that, connections are kept as long as configured until there is a new
estimate.
"""

SEEN_SECONDS = 0.5
"""An unknown endpoint is assumed to keep connections for these seconds."""

TRUST_RATIO = 0.8
"""The share of the observed time that is relied on."""


class IdleLifetime:
    """The observed idle connections of one endpoint. Times are monotonic seconds."""

    __slots__ = ("_closings", "_until", "seconds", "seen_seconds")

    def __init__(self) -> None:
        self.seconds = float("inf")
        """A connection may be idle for these seconds: somewhat less than the endpoint keeps it."""
        self.seen_seconds = SEEN_SECONDS
        """The longest idle time of connections that are still open, at most the idle time of the last closed one."""
        self._closings: deque[tuple[float, float]] = deque(maxlen=CLOSINGS)
        """The last closings: when, and the idle time in seconds."""
        self._until = 0.0

    @property
    def trusted_seconds(self) -> float:
        """A connection with at most these idle seconds may carry a request that cannot be repeated."""
        return self.seen_seconds * TRUST_RATIO

    def record_open(self, idle: float) -> None:
        """Record an open connection that has been idle for `idle` seconds."""
        self.seen_seconds = max(self.seen_seconds, idle)

    def record_close(self, idle: float, now: float, oldest: float = 0.0) -> None:
        """Record that the endpoint has closed a connection after `idle` seconds without use.

        `oldest`: the idle time of another connection that is still open.
        """
        self.seen_seconds = min(self.seen_seconds, idle)
        if oldest > idle * AGREE_RATIO + AGREE_SECONDS:
            return  # The endpoint keeps connections longer than that, so this closing had another reason.
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
        """Drop estimates that are too old; called twice a second."""
        if 0.0 < self._until <= now:
            self.seconds, self._until = float("inf"), 0.0
            self._closings.clear()
