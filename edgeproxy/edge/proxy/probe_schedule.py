"""The probes of a client that has closed its side: does it still wait for its answer?

A client that has closed its side, and one that has closed altogether, look the same until something is sent to it.
Where the connection is gone the answer to that is a reset, of which reset_watcher.py tells.
"""

from typing import Final

from edgeproxy.edge.proxy.deadlines import NEVER

PROBE_SECONDS: Final = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before a client that has closed its side is probed, each time; the first are of the request's own time. Who
closes that soon has been told to, as by `nc -N`, and mostly waits."""


class ProbeSchedule:
    """The probes of one connection. Times are seconds of the monotonic clock."""

    __slots__ = ("count", "due")

    def __init__(self, started: float, now: float) -> None:
        """`started`: when the request under way began."""
        self.count = 0
        """The number of probes that were sent."""
        self.due = max(now, started + PROBE_SECONDS[0])
        """The time of the next probe."""

    def is_due(self, now: float) -> bool:
        """Return whether it is to be probed now."""
        return now >= self.due and self.count < len(PROBE_SECONDS)

    def record_probe(self, now: float) -> None:
        """Count a probe that was sent, and wait longer for the next."""
        self.count += 1
        self.due = now + (*PROBE_SECONDS, NEVER)[self.count]
