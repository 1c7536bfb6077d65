"""Heartbeats of workers: each says something every second, and one that has been silent for too long hangs.

Silence is counted in checks, which the supervisor makes as often, and not by a clock: where the supervisor itself did
not run, stopped or on a suspended host, workers may have beaten unseen.
"""

HUNG_SECONDS = 10.0
"""Seconds of silence after which a serving worker is taken to hang."""

CHECKS_PER_HUNG_TIME = 10
"""Checks in that time, so that a hanging worker is detected at most a tenth later."""


class Heartbeat:
    """The heartbeat of one worker. A worker that has never beaten does not hang."""

    def __init__(self) -> None:
        self._missed: int | None = None

    def beat(self) -> None:
        """Record a beat."""
        self._missed = 0

    def is_hung(self) -> bool:
        """Return whether the worker hangs. To be called CHECKS_PER_HUNG_TIME times in HUNG_SECONDS."""
        if self._missed is None:
            return False
        self._missed += 1
        return self._missed > CHECKS_PER_HUNG_TIME
