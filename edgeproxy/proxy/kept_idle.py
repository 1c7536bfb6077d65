"""How long an endpoint keeps a connection that is idle, as those tell that it has closed.

A request that meets the closing is lost. One that may be sent twice goes out again; all others depend on it that no
connection is lent about the time at which the endpoint closes it.
"""

from collections import deque

from edgeproxy.http1.keep_alive import earlier

CLOSINGS = 3
"""Closings that have to agree."""

APART_SECONDS = 0.5
"""Closings that are nearer to each other are one: an endpoint that ends closes all at once, whatever their age."""

AGREE_RATIO, AGREE_SECONDS = 1.5, 0.05
"""By how much they may differ: some servers look only once a second who is idle."""

FORGET_SECONDS = 300.0
"""Seconds for which it counts. Connections are then kept as long as is configured, until it is learnt anew."""


class KeptIdle:
    """What is known of one endpoint. Times are seconds of the monotonic clock."""

    __slots__ = ("_closings", "_until", "seconds")

    def __init__(self) -> None:
        self.seconds = float("inf")
        """For how long a connection may be kept idle: somewhat less than the endpoint keeps it."""
        self._closings: deque[tuple[float, float]] = deque(maxlen=CLOSINGS)
        """(when, idle for how long) of the last."""
        self._until = 0.0

    def closed(self, idle: float, now: float, oldest: float = 0.0) -> None:
        """The endpoint has closed a connection that was idle for so long; `oldest`: another one is, and is open."""
        if oldest > idle * AGREE_RATIO + AGREE_SECONDS:
            return  # It keeps them for longer than that, and had another reason.
        closings = self._closings
        if closings and now - closings[-1][0] < APART_SECONDS:
            return
        closings.append((now, idle))
        shortest = min(each for _, each in closings)
        longest = max(each for _, each in closings)
        if len(closings) == CLOSINGS and longest <= shortest * AGREE_RATIO + AGREE_SECONDS:
            self.seconds = earlier(shortest)
            self._until = now + FORGET_SECONDS

    def look(self, now: float) -> None:
        """Twice a second: is it still so?"""
        if 0.0 < self._until <= now:
            self.seconds, self._until = float("inf"), 0.0
            self._closings.clear()
