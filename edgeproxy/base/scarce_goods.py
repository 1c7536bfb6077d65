"""Scarce goods as operators see them: the amount, the units in use, and the number of refused claims."""

from collections.abc import Callable

from edgeproxy.base import log

LOG_SECONDS = 60.0
"""Seconds between two log lines about one share."""


class ScarceGood:
    """A good that is divided into shares (`shares.py`)."""

    def __init__(self, name: str, get_amount: Callable[[], int], count_in_use: Callable[[], int]) -> None:
        """Create a good. `name` is the value of the label `good` in its metrics."""
        self.name = name
        self.get_amount = get_amount
        self.count_in_use = count_in_use
        self.refused = 0
        """The number of claims that were refused or had to wait."""
        self._log = log.RateLimitedLog(LOG_SECONDS)

    def record_refusal(self, key: str) -> None:
        """Count a refused claim, and log the key whose share is used up."""
        self.refused += 1
        share = key or "all of it"
        self._log.error("a share of a scarce good is used up", f"{self.name}, {share}", good=self.name, share=share)
