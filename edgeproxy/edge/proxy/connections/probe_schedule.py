"""The probes of a client that has closed its side: does it still wait for its answer?

A half-closed client and a closed one look alike until bytes are sent. A closed one then answers with a reset, which
reset_watcher.py detects.
"""

from typing import Final

from edgeproxy.edge.proxy.transport.deadlines import NEVER

PROBE_SECONDS: Final = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each probe of a half-closed client. The first value counts from the start of the request. A client
that closes that early was told to, as by `nc -N`, and mostly waits.
"""


class ProbeSchedule:
    """The probes of one connection. Times are monotonic seconds."""

    __slots__ = ("count", "due")

    def __init__(self, started: float, now: float) -> None:
        """`started`: when the current request began."""
        self.count = 0
        """The number of probes that were sent."""
        self.due = max(now, started + PROBE_SECONDS[0])
        """The time of the next probe."""

    def is_due(self, now: float) -> bool:
        """Return whether a probe is due."""
        return now >= self.due and self.count < len(PROBE_SECONDS)

    def record_probe(self, now: float) -> None:
        """Count a probe that was sent, and wait longer for the next."""
        self.count += 1
        self.due = now + (*PROBE_SECONDS, NEVER)[self.count]
