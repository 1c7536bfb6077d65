"""Calendar periods of quotas: the day or month in a time zone, with its beginning and end."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edgeproxy.base.clock import EPOCH

MONTHS = 12
EVER_SECONDS = 400 * 86400.0
"""Seconds of storage for counts without an end, after their last change."""


class Period(NamedTuple):
    """A day or month: its number, which increases by one per period, and its beginning and end in edge time."""

    number: int
    since: float
    until: float


def period_of(now: float, per: str, zone: ZoneInfo) -> Period:
    """Return the `day` or `month` of this time zone at edge time `now`.

    The zone determines the length of a day, which is 23 or 25 hours when clocks change. For plans and credits,
    `month@SECOND` is a month counted from a Unix second, and `ever@NUMBER` has no end.
    """
    kind, _, of = per.partition("@")
    if kind == "ever":
        return Period(1, 0.0, now - now % EVER_SECONDS + 2 * EVER_SECONDS)
    if of:
        anchor, at = int(of), now + EPOCH
        months = months_since(anchor, at)
        since, until = months_after(anchor, months), months_after(anchor, months + 1)
        return Period(max(0, months) + 1, float(since - EPOCH), float(until - EPOCH))
    local = datetime.fromtimestamp(now + EPOCH, zone)
    if per == "day":
        first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        return Period(local.toordinal(), _edge_time(first), _edge_time(first + timedelta(days=1)))
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(local.year * 12 + local.month, _edge_time(first), _edge_time(following))


def months_after(anchor: int, months: int) -> int:
    """Add months to a Unix second. The day of the month is kept, or reduced to the last day of a shorter month."""
    at = datetime.fromtimestamp(anchor, UTC)
    year, month = divmod(at.year * MONTHS + at.month - 1 + months, MONTHS)
    day = min(at.day, monthrange(year, month + 1)[1])
    return int(at.replace(year=year, month=month + 1, day=day).timestamp())


def months_since(anchor: int, at: float) -> int:
    """Return the number of whole months between two Unix seconds."""
    then, now = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(at, UTC)
    months = (now.year - then.year) * MONTHS + now.month - then.month
    return months - 1 if months_after(anchor, months) > at else months


def _edge_time(local: datetime) -> float:
    return local.timestamp() - EPOCH
