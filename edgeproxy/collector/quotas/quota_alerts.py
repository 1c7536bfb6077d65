"""The alerts of quotas with reached thresholds. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind, Severity
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.limits import Entitlement

UTC = "UTC"


def make_quota_alerts(customer: str, status: QuotaUsage, thresholds: Iterable[int], now: float) -> Iterator[Alert]:
    """Yield an alert for each threshold, in percent, that a quota has reached at edge time `now`."""
    quota, period = status.quota, status.period
    if period is None or not status.used or (isinstance(quota, Entitlement) and quota.why is not None):
        return  # The alert of the breached cap reports the end of a grace.
    first = datetime.fromtimestamp(period.since + EPOCH, ZoneInfo(quota.timezone))
    when = f"{first:%Y-%m-%d}" if quota.per == "day" else f"{first:%Y-%m}"
    for percent in thresholds:
        if status.has_reached(percent):
            title = f"{customer} has used {percent} % of what is included of {quota.name}, {when}"
            yield _make_alert(customer, status, percent, when, title, now)


def get_level_month(now: float) -> float:
    """Return the edge time at the start of the UTC month, which levels are compared with."""
    return period_of(now, "month", ZoneInfo(UTC)).since


def make_level_alerts(
    customer: str, status: QuotaUsage, earlier: int, thresholds: Iterable[int], now: float
) -> Iterator[Alert]:
    """Yield an alert for each threshold, in percent, that the level of a quota without a period has risen to.

    `earlier` is the level at the start of the month. A threshold that was reached then, for example because all seats
    have long been in use, is not reported.
    """
    quota, before = status.quota, status._replace(used=earlier)
    when = f"{datetime.fromtimestamp(now + EPOCH, ZoneInfo(UTC)):%Y-%m}"
    for percent in thresholds:
        if status.used and status.has_reached(percent) and not (earlier and before.has_reached(percent)):
            title = f"{customer} uses {percent} % of what is included of {quota.name}"
            yield _make_alert(customer, status, percent, when, title, now)


def _make_alert(customer: str, status: QuotaUsage, percent: int, when: str, title: str, now: float) -> Alert:
    quota = status.quota
    details = {field: value for field, value in status.to_response(None).items() if field != "projected"}
    name = quota.name if quota.timezone == UTC else f"{quota.name}@{quota.timezone}"
    return Alert(
        key=f"quota:{customer}:{name}:{when}:{percent}",
        kind=AlertKind.QUOTA_REACHED,
        severity=select_severity(percent),
        customer=customer,
        title=title,
        details={"threshold": percent, **details},
        at=now + EPOCH,
    )


def parse_alert_key(key: str) -> tuple[str, int]:
    """Return the quota's name and the percentage in an alert's key."""
    _, name, _, percent = key.rsplit(":", 3)
    return name, int(percent)


def select_severity(percent: int) -> Severity:
    """Return the severity of a threshold in percent."""
    if percent < 100:
        return "info"
    return "warn" if percent == 100 else "page"
