"""The breaker before a node: one that is away is tried again ever more rarely, and by one connection. Pure.

The standard words: *closed* is answering, *open* away, *half-open* being tried. A node that answers a single probe and
falls again under what all hosts then tell it has not come back: what counts is how long it stays.
"""

import random
from typing import Literal

FIRST_RETRY_SECONDS = 0.5
"""Seconds before the first attempt after a loss, give or take half."""
RETRY_SECONDS_MAX = 5.0
"""Seconds between two attempts at most, however many have failed."""
STEADY_SECONDS = 10.0
"""Seconds for which a node must answer before earlier failures are forgotten."""

State = Literal["closed", "open", "half-open"]


class Breaker:
    """The breaker of one node. Times are monotonic seconds."""

    __slots__ = ("_chance", "_closed_at", "_times", "state")

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()
        self._times = 0
        """Losses and failed attempts in a row."""
        self._closed_at = 0.0
        self.state: State = "open"

    def probe(self) -> None:
        """Record an attempt on the node."""
        self.state = "half-open"

    def close(self, now: float) -> None:
        """Record an answer of the node."""
        self.state, self._closed_at = "closed", now

    def open(self, now: float) -> float:
        """Record a lost node or a failed attempt; return the seconds until the next attempt."""
        if self.state == "closed" and now - self._closed_at >= STEADY_SECONDS:
            self._times = 0
        # The exponent is held down so that a hub that is away for a year does not overflow a float.
        pause: float = min(RETRY_SECONDS_MAX, FIRST_RETRY_SECONDS * 2 ** min(self._times, 16))
        self._times += 1
        self.state = "open"
        return pause * self._chance.uniform(0.5, 1.5)
