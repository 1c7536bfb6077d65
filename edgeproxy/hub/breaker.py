"""The breaker of a node: a lost node is tried again at growing intervals, by one connection. Pure.

The states have their usual names: a *closed* breaker's node answers, an *open* one's is lost, a *half-open* one's is
being tried. A node that answers a probe and then fails under the load of all hosts has not recovered. So failures are
forgotten only after a while without new ones.
"""

import random
from typing import Literal

FIRST_RETRY_SECONDS = 0.5
"""Seconds before the first attempt after a loss, plus or minus half."""
RETRY_SECONDS_MAX = 5.0
"""Maximum seconds between two attempts."""
STEADY_SECONDS = 10.0
"""Seconds without failure before earlier failures are forgotten."""

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
        """Record the loss of the node or a failed attempt. Return the seconds until the next attempt."""
        if self.state == "closed" and now - self._closed_at >= STEADY_SECONDS:
            self._times = 0
        # The exponent is bounded, so that a year without the hub does not overflow a float.
        pause: float = min(RETRY_SECONDS_MAX, FIRST_RETRY_SECONDS * 2 ** min(self._times, 16))
        self._times += 1
        self.state = "open"
        return pause * self._chance.uniform(0.5, 1.5)
