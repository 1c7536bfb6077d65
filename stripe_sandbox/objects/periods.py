"""Periods of subscriptions: an anchor, and intervals counted from it. Pure; seconds since 1970, UTC."""

import calendar
from collections.abc import Mapping
from datetime import UTC, datetime

from stripe_sandbox.transaction import Fields

SECONDS = {"day": 86400, "week": 7 * 86400}
MONTHS = {"month": 1, "year": 12}


def shift_by_intervals(anchor: int, interval: str, many: int) -> int:
    """Shift an anchor by intervals; the last day of a month without the anchor's day."""
    if interval in SECONDS:
        return anchor + many * SECONDS[interval]
    moment = datetime.fromtimestamp(anchor, UTC)
    months = moment.year * 12 + moment.month - 1 + many * MONTHS[interval]
    year, month = months // 12, months % 12 + 1
    day = min(moment.day, calendar.monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp())


def find_period(anchor: int, recurring: Fields, at: int) -> tuple[int, int]:
    """Return the period of a price at a moment: its start and its end."""
    interval, count = recurring["interval"], recurring["interval_count"]
    each = shift_by_intervals(anchor, interval, count) - anchor
    many = (at - anchor) // each
    while shift_by_intervals(anchor, interval, many * count) > at:
        many -= 1
    while shift_by_intervals(anchor, interval, (many + 1) * count) <= at:
        many += 1
    return shift_by_intervals(anchor, interval, many * count), shift_by_intervals(anchor, interval, (many + 1) * count)


def find_item_period(subscription: Fields, recurring: Fields, at: int) -> tuple[int, int]:
    """Return the period of an item that begins at a moment: the rest of the trial, or of a period by the anchor."""
    trial_end = subscription.get("trial_end")
    if trial_end is not None and at < trial_end:
        return at, trial_end
    return at, find_period(subscription["billing_cycle_anchor"], recurring, at)[1]


def find_anchor(config: Mapping[str, int | None], now: int) -> int:
    """Return the next moment with a day of the month, an hour, a minute and a second, by default those of now."""
    moment = datetime.fromtimestamp(now, UTC)
    hour, minute, second = (
        part if (part := config.get(name)) is not None else getattr(moment, name)
        for name in ("hour", "minute", "second")
    )
    year, month = moment.year, config.get("month") or moment.month
    while True:
        day = min(config["day_of_month"] or 1, calendar.monthrange(year, month)[1])
        candidate = int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
        if candidate >= now:
            return candidate
        if config.get("month"):
            year += 1
        else:
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
