"""The waits between attempts to send a message, until it becomes a dead letter. Pure."""

from collections.abc import Callable, Sequence

BACKOFF_SECONDS = (5, 30, 120, 600, 1800, 7200, 18000, 36000, 36000, 36000)
"""Seconds after each failed attempt until the next one: eleven attempts in a day and a half."""
STANDARD_BACKOFF_SECONDS = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
"""The waits for customers' endpoints, as Standard Webhooks recommend: ten attempts in three days."""
JITTER = 0.2
"""The largest random extension of a wait, relative to it, so that retries are spread."""
WAIT_SECONDS_MAX = 3600.0
"""Most seconds of Retry-After that are honoured."""


def compute_wait(
    attempts: int,
    requested_wait: float | None,
    random: Callable[[], float],
    backoff: Sequence[int] = BACKOFF_SECONDS,
) -> float | None:
    """Return the seconds until the next attempt after this many failures; None: the message is a dead letter.

    `requested_wait` is the receiver's Retry-After in seconds. `random` returns numbers from 0 to 1.
    """
    if attempts > len(backoff):
        return None
    wait = backoff[attempts - 1] * (1 + JITTER * random())
    return max(wait, min(requested_wait or 0.0, WAIT_SECONDS_MAX))
