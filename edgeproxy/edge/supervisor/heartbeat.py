"""Heartbeats of workers: each sends a message every second, and a worker that is silent for too long hangs.

Silence is counted in the supervisor's checks, which are about as frequent, and not by a clock: while the supervisor
itself was stopped, or its host suspended, workers may have sent heartbeats that it has not read.
"""

HUNG_SECONDS = 10.0
"""A serving worker that is silent for these seconds is assumed to hang."""

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
