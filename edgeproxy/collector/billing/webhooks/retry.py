"""What becomes of an event that could not be applied: it is tried again later, or is a dead letter. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

PAUSES: Sequence[float] = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds after each attempt that failed; after the last one it is a dead letter."""
POLL_PAUSE = 600.0
"""Seconds between further attempts of an event that waits for Stripe's list of events."""
POLL_ATTEMPTS_MAX = 144
"""Further attempts for want of that list, at most: those of a day, as a poll that never ends must hide nothing."""
DELIVERED = ", and Stripe's list of events, which was read since, has not brought it"
UNDELIVERED = ", and Stripe's list of events could not be read since"


class Cause(StrEnum):
    """Why an event could not be applied."""

    UNAVAILABLE = "unavailable"
    """Stripe does not answer now: nothing is wrong with the event."""
    FAULT = "fault"
    UNBOOKED = "unbooked"
    """The event is about an object that is not booked yet, as its own event may be lost until the list is read."""


class EventRetry(NamedTuple):
    """What becomes of an event."""

    pause: float | None
    """Seconds until it is tried again; None: it is a dead letter."""
    why: str = ""
    """What is to be said beside the cause."""


def decide_retry(attempts: int, cause: Cause, *, is_listed: bool) -> EventRetry:
    """Decide on an event that failed once more after so many failed attempts.

    `is_listed` says that Stripe's list of events was read in whole since the event came, and applied before this
    attempt: a lost event would have been in it.
    """
    if attempts < len(PAUSES):
        return EventRetry(PAUSES[attempts])
    if cause is Cause.UNAVAILABLE:
        return EventRetry(PAUSES[-1])
    if cause is Cause.FAULT:
        return EventRetry(None)
    if is_listed:
        return EventRetry(None, DELIVERED)
    if attempts >= len(PAUSES) + POLL_ATTEMPTS_MAX:
        return EventRetry(None, UNDELIVERED)
    return EventRetry(POLL_PAUSE)
