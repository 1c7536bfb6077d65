"""Start and end of billing periods. Pure: takes Unix seconds in UTC, and returns half-open spans.

A period is a month: from the 1st to the next 1st, or from the day when a customer subscribed. Edges count by minutes,
so every period begins and ends at a whole minute.
"""

from datetime import UTC, datetime

from edgeproxy.base.calendar import MONTHS, months_after, months_since
from edgeproxy.base.timestamps import format_day
from edgeproxy.collector.billing.rating.rater import Span

MINUTE, DAY = 60, 86400


def floor_to_minute(at: float) -> int:
    """Return the start of the minute."""
    return int(at // MINUTE) * MINUTE


def day_start(year: int, month: int, day: int = 1) -> int:
    """Return the Unix second at the start of a day."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def period_at(at: float, anchor: int | None = None) -> Span:
    """Return the period of a moment. Months are counted from `anchor`, or from the 1st if it is None."""
    anchor = _month_start(at) if anchor is None else anchor
    months = months_since(anchor, at)
    return Span(months_after(anchor, months), months_after(anchor, months + 1))


def period_after(period: Span, anchor: int | None = None) -> Span:
    """Return the next period."""
    return period_at(period.end, anchor)


def find_end_after(period: Span, anchor: int | None, count: int) -> int:
    """Return the end of `count` periods, beginning with this one."""
    for _ in range(count - 1):
        period = period_after(period, anchor)
    return period.end


def year_of_period(period: Span, anchor: int | None = None) -> Span:
    """Return the year whose first month is this period."""
    anchor = period.start if anchor is None else anchor
    return Span(period.start, months_after(anchor, months_since(anchor, period.start) + MONTHS))


def compute_trial(at: float, days: int) -> Span:
    """Return the trial of `days` days that begins at a moment."""
    start = floor_to_minute(at)
    return Span(start, start + days * DAY)


def _month_start(at: float) -> int:
    """Return the start of the calendar month of a moment."""
    date = datetime.fromtimestamp(at, UTC)
    return day_start(date.year, date.month)


def format_period(period: Span) -> str:
    """Return the first day of a period in the form that invoices use: `2027-01-01`."""
    return format_day(period.start // DAY)


def compute_boundary(now: float, since: int) -> int:
    """Return the minute when a change made now takes effect, in a segment that began at `since`.

    No segment is empty. If the segment began in the current minute, the change takes effect in the next one.
    """
    return max(floor_to_minute(now), since + MINUTE)
