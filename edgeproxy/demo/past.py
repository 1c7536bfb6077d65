"""A process whose clock is set back: `python -m edgeproxy.demo.past COLLECTOR_YAML STRIPE`. It writes the history.

It prints the secrets of created keys as JSON.
"""

import sys
import time
from pathlib import Path

TICK_SECONDS = 0.001
"""Seconds by which each look at the clock moves it, so that ids keep the order of their creation."""


class PastClock:
    """The clock of this process, in Unix seconds. Only looks and moves change it."""

    def __init__(self) -> None:
        self.present = self.now = time.time()
        time.time = self._look
        time.time_ns = lambda: round(self._look() * 1e9)

    def _look(self) -> float:
        self.now += TICK_SECONDS
        return self.now


def main() -> None:
    """Write the history."""
    clock = PastClock()  # Before anything is imported that keeps the clock as a default.
    from edgeproxy.demo.history import write_history

    write_history(clock, Path(sys.argv[1]), sys.argv[2])


if __name__ == "__main__":
    main()
