"""Whether workers live: each says so every second, and one that has been silent for too long hangs.

Silence is counted in looks, which the supervisor takes as often, and not by a clock: where the supervisor itself did
not run, stopped or on a host that was suspended, the workers may have spoken, and it did not hear.
"""

HUNG_SECONDS = 10.0
"""Seconds of silence after which a worker that serves is taken to hang."""

CHECKS_PER_HUNG_TIME = 10
"""Looks in that time, so that a hanging worker is found at most a tenth later."""


class Heartbeat:
    """One worker's; nothing is said of it before it has beaten once."""

    def __init__(self) -> None:
        self._missed: int | None = None

    def beat(self) -> None:
        """It has said that it lives."""
        self._missed = 0

    def look(self) -> bool:
        """Return whether the worker hangs. To be called CHECKS_PER_HUNG_TIME times in HUNG_SECONDS."""
        if self._missed is None:
            return False
        self._missed += 1
        return self._missed > CHECKS_PER_HUNG_TIME
