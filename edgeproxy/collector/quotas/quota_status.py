"""The status of a customer's quota: its usage, and the projection to the end of the period. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from edgeproxy.base.calendar import Period
from edgeproxy.base.clock import EPOCH
from edgeproxy.base.percent import compute_percent
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.ledger.projection import DAYS_MIN, project_quantity
from edgeproxy.config.limits import Quota


class QuotaProjection(TypedDict):
    """The projected units at the end of a period, if each day is like the one with the least or the most usage of the
    last seven.
    """

    days: int
    """The number of whole days behind the projection, at most seven."""
    low: int | None
    """The units if each day is like the one with the least usage; null below three days."""
    high: int | None
    """The units if each day is like the one with the most usage; null below three days."""


class QuotaStatus(TypedDict):
    """A quota of a customer and its usage."""

    quota: str
    """The name of the quota."""
    meter: str
    """The meter that is counted."""
    per: Literal["day", "month"] | None
    """The period after which the count starts again; null if the quota limits items that exist at once."""
    timezone: str
    """The time zone whose midnight begins a period, for example UTC or Pacific/Auckland."""
    cap: Literal["soft", "hard"]
    """`soft` lets requests above the limit pass and marks them, `hard` refuses them."""
    limit: int
    """The units that are included in a period."""
    used: int
    """The units used in this period."""
    percent: float
    """The share of the limit that is used, in percent."""
    projected: QuotaProjection | None
    """The projected units at the end of the period; null if there is no period, or if the meter cannot be added up."""
    since: str | None
    """The start of the period; null if there is none."""
    resets: str | None
    """The end of the period; null if there is none."""


class QuotaUsage(NamedTuple):
    """A quota, its usage, and the period of the usage; None if it counts allocations."""

    quota: Quota
    used: int
    period: Period | None

    @property
    def percent(self) -> float:
        """The usage in percent of the included units; 100 if none are included."""
        limit = self.quota.included
        return compute_percent(self.used, limit) if limit else 100.0

    def has_reached(self, percent: int) -> bool:
        """Return whether this percentage is used."""
        return self.used * 100 >= percent * self.quota.included

    def compute_projection(self, days: Sequence[int], now: float) -> QuotaProjection | None:
        """Return the projection from the usage of the last days, at edge time `now`; None without a period."""
        if self.period is None:
            return None
        if len(days) < DAYS_MIN:
            return {"days": len(days), "low": None, "high": None}
        low, high = project_quantity(self.used, days, round(self.period.until - now))
        return {"days": len(days), "low": low, "high": high}

    def to_response(self, projected: QuotaProjection | None) -> QuotaStatus:
        """Return the status in the form of the API."""
        quota, period = self.quota, self.period
        return {
            "quota": quota.name,
            "meter": quota.meter,
            "per": None if quota.per is None else "day" if quota.per == "day" else "month",
            "timezone": quota.timezone,
            "cap": quota.cap,
            "limit": quota.included,
            "used": self.used,
            "percent": self.percent,
            "projected": projected,
            "since": None if period is None else format_edge_time(period.since),
            "resets": None if period is None else format_edge_time(period.until),
        }


def format_edge_time(at: float) -> str:
    """Return edge time as RFC 3339."""
    return format_timestamp(round((at + EPOCH) * 1000))
