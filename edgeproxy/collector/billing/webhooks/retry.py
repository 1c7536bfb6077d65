"""The fate of an event that could not be applied: another try later, or a dead letter. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

PAUSES: Sequence[float] = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds after each failed attempt. After the last one, the event is a dead letter."""
POLL_PAUSE = 600.0
"""Seconds between further attempts of an event that waits for Stripe's list of events."""
POLL_ATTEMPTS_MAX = 144
"""The most further attempts while that list is missing.

They last a day, because a poll that never ends must not hide a fault.
"""
DELIVERED = ", and Stripe's list of events, which was read since, has not brought it"
UNDELIVERED = ", and Stripe's list of events could not be read since"


class Cause(StrEnum):
    """The reason why an event could not be applied."""

    UNAVAILABLE = "unavailable"
    """Stripe does not answer now; the event itself is fine."""
    FAULT = "fault"
    UNBOOKED = "unbooked"
    """The event is about an object that is not booked yet: its own event may be lost until the list is read."""


class EventRetry(NamedTuple):
    """The decision on an event."""

    pause: float | None
    """Seconds until the next try; None makes it a dead letter."""
    why: str = ""
    """Text to add to the cause."""


def decide_retry(attempts: int, cause: Cause, *, is_listed: bool) -> EventRetry:
    """Decide on an event that failed again, after `attempts` failed attempts.

    `is_listed` means that Stripe's list of events was read completely after the event arrived, and applied before this
    attempt. A lost event would have been on it.
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
