"""The alerts of quotas whose thresholds are reached. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

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
        return  # The breached cap has the end of a grace.
    first = datetime.fromtimestamp(period.since + EPOCH, ZoneInfo(quota.timezone))
    when = f"{first:%Y-%m-%d}" if quota.per == "day" else f"{first:%Y-%m}"
    name = quota.name if quota.timezone == UTC else f"{quota.name}@{quota.timezone}"
    for percent in thresholds:
        if status.has_reached(percent):
            yield Alert(
                key=f"quota:{customer}:{name}:{when}:{percent}",
                kind=AlertKind.QUOTA_REACHED,
                severity=select_severity(percent),
                customer=customer,
                title=f"{customer} has used {percent} % of what is included of {quota.name}, {when}",
                details={"threshold": percent, **status.to_response(now)},
                at=now + EPOCH,
            )


def parse_alert_key(key: str) -> tuple[str, int]:
    """Return the quota's name and the percentage of an alert's key."""
    _, name, _, percent = key.rsplit(":", 3)
    return name, int(percent)


def select_severity(percent: int) -> Severity:
    """Return the severity of a threshold in percent."""
    if percent < 100:
        return "info"
    return "warn" if percent == 100 else "page"
