"""When what a channel has not taken is tried again, and when no more. Pure."""

from collections.abc import Callable

BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 18000, 36000, 36000, 36000)
"""Seconds after each failed attempt until the next one: eleven attempts in a day and a half."""
JITTER = 0.2
"""By what part of itself a wait is longer at most, so that not all come back together."""
WAIT_SECONDS_MAX = 3600.0
"""Seconds that a receiver may ask us to wait."""


def compute_wait(attempts: int, requested_wait: float | None, random: Callable[[], float]) -> float | None:
    """Seconds until the next attempt after so many have failed; None: there is none, it is a dead letter.

    `asked` are the seconds that the receiver wants to be left alone, `random` gives numbers from 0 to 1.
    """
    if attempts > len(BACKOFF_SECONDS):
        return None
    wait = BACKOFF_SECONDS[attempts - 1] * (1 + JITTER * random())
    return max(wait, min(requested_wait or 0.0, WAIT_SECONDS_MAX))
