"""When periods begin and end. Pure: Unix seconds of UTC in, spans out, all half-open.

A period is a month: from the 1st to the next 1st, or from the day on which a customer subscribed. What edges count is
told apart by minutes, so everything begins and ends at a whole one.
"""

from datetime import UTC, datetime

from edgeproxy.base.calendar import MONTHS, months_after, months_since
from edgeproxy.collector.billing.rating.rater import Span

MINUTE = 60


def minute(at: float) -> int:
    """The beginning of a minute."""
    return int(at // MINUTE) * MINUTE


def moment(year: int, month: int, day: int = 1) -> int:
    """The Unix second at which a day begins."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def period_at(at: float, anchor: int | None = None) -> Span:
    """The period that a moment is in: of an `anchor`, from which on months are counted, or (None) from the 1st."""
    anchor = _first(at) if anchor is None else anchor
    months = months_since(anchor, at)
    return Span(months_after(anchor, months), months_after(anchor, months + 1))


def period_after(period: Span, anchor: int | None = None) -> Span:
    """The period that follows one."""
    return period_at(period.end, anchor)


def year_from(period: Span, anchor: int | None = None) -> Span:
    """The year whose first month is this period."""
    anchor = period.start if anchor is None else anchor
    return Span(period.start, months_after(anchor, months_since(anchor, period.start) + MONTHS))


def _first(at: float) -> int:
    """The beginning of the calendar month of a moment."""
    on = datetime.fromtimestamp(at, UTC)
    return moment(on.year, on.month)


def name_of(period: Span) -> str:
    """The day on which a period begins, as invoices call it: `2027-01-01`."""
    return datetime.fromtimestamp(period.start, UTC).strftime("%Y-%m-%d")


def boundary(now: float, since: int) -> int:
    """The minute in which a change takes effect now, of a segment that began at `since`: all of this minute is after
    it. No segment is empty, so that it is the next minute where the segment began in this one."""
    return max(minute(now), since + MINUTE)
