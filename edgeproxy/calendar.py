"""Calendar periods of quotas: which day or month it is in a time zone, and when that began and ends."""

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from edgeproxy.clock import EPOCH


class Period(NamedTuple):
    """A day or a month: its number, which grows by one from each to the next, and edge time from and until."""

    number: int
    since: float
    until: float


def period_of(now: float, per: str, zone: ZoneInfo) -> Period:
    """The `day` or `month` of this time zone in which edge time `now` lies.

    A day is as long as its zone makes it: 23 or 25 hours where clocks are changed in it.
    """
    local = datetime.fromtimestamp(now + EPOCH, zone)
    if per == "day":
        first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        return Period(local.toordinal(), _edge_time(first), _edge_time(first + timedelta(days=1)))
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return Period(local.year * 12 + local.month, _edge_time(first), _edge_time(following))


def _edge_time(local: datetime) -> float:
    return local.timestamp() - EPOCH
