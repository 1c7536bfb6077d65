"""The status of a customer's quota: its usage, and the projection to the end of the period. Pure."""

from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from edgeproxy.base.calendar import Period
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.config.limits import Quota

PACE_SECONDS_MIN = 3600
"""Seconds of a period over which the pace is computed at least."""


class QuotaStatus(TypedDict):
    """A quota of a customer, and what is used of it."""

    quota: str
    """The name of the quota."""
    meter: str
    """The meter that is counted."""
    per: Literal["day", "month"] | None
    """The period after which the count begins again; null where the quota counts what exists."""
    cap: Literal["soft", "hard"]
    """`soft` lets requests above the limit pass and marks them, `hard` refuses them."""
    limit: int
    """The units that are included in a period."""
    used: int
    """The units used in this period."""
    percent: float
    """The share of the limit that is used, in percent."""
    projected: int | None
    """The units at the end of the period at its pace so far; null where there is no period."""
    since: str | None
    """The beginning of the period; null where there is none."""
    resets: str | None
    """The end of the period; null where there is none."""


class QuotaUsage(NamedTuple):
    """A quota, its usage, and the period of that; None where it counts allocations."""

    quota: Quota
    used: int
    period: Period | None

    @property
    def percent(self) -> float:
        """Return the usage in percent of the included units; 100 where none are included."""
        limit = self.quota.included
        return round(self.used * 100 / limit, 2) if limit else 100.0

    def has_reached(self, percent: int) -> bool:
        """Return whether this percentage is used."""
        return self.used * 100 >= percent * self.quota.included

    def compute_projection(self, now: float) -> int | None:
        """Return the usage at the end of the period at its pace so far, at edge time `now`; None without a period."""
        if self.period is None:
            return None
        length = round(self.period.until - self.period.since)
        over = min(length, max(PACE_SECONDS_MIN, round(now - self.period.since)))
        return -(-self.used * length // over)

    def to_response(self, now: float) -> QuotaStatus:
        """Return the status as the API does, at edge time `now`."""
        quota, period = self.quota, self.period
        return {
            "quota": quota.name,
            "meter": quota.meter,
            "per": None if quota.per is None else "day" if quota.per == "day" else "month",
            "cap": quota.cap,
            "limit": quota.included,
            "used": self.used,
            "percent": self.percent,
            "projected": self.compute_projection(now),
            "since": None if period is None else format_edge_time(period.since),
            "resets": None if period is None else format_edge_time(period.until),
        }


def format_edge_time(at: float) -> str:
    """Return edge time as RFC 3339."""
    return format_timestamp(round((at + EPOCH) * 1000))
