"""Alerts of one subject on one line. Pure.

A quota, a budget or spending may reach several thresholds in a period. The line shows the highest threshold and folds
the lower ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.pages.api import JsonDocument

SUBJECTS: Mapping[str, Callable[[JsonDocument], tuple[object, ...]]] = {
    AlertKind.QUOTA_REACHED: lambda details: (details.get("quota"), details.get("since")),
    AlertKind.KEY_BUDGET_REACHED: lambda details: (details.get("key"), details.get("resets")),
    AlertKind.SPEND_REACHED: lambda details: (details.get("period_start"), details.get("currency")),
}
"""The subject and the period in an alert's details, by kind."""


class AlertGroup(NamedTuple):
    """The alerts of one subject in a period."""

    alert: JsonDocument
    """The alert of the highest threshold."""
    earlier: Sequence[JsonDocument] = ()
    """The alerts of lower thresholds, the highest first."""

    @property
    def waiting(self) -> list[str]:
        """Return the numbers of the alerts that need an acknowledgement."""
        return [str(one["id"]) for one in (self.alert, *self.earlier) if waits(one)]


def group_alerts(alerts: Sequence[JsonDocument]) -> list[AlertGroup]:
    """Return alerts grouped by subject. A group takes the place of its highest threshold."""
    members: dict[object, list[JsonDocument]] = {}
    for alert in alerts:
        members.setdefault(_find_subject(alert), []).append(alert)
    ranked = [sorted(some, key=_get_threshold, reverse=True) for some in members.values()]
    groups = {id(highest): AlertGroup(highest, earlier) for highest, *earlier in ranked}
    return [groups[id(alert)] for alert in alerts if id(alert) in groups]


def waits(alert: JsonDocument) -> bool:
    """Return True if an alert needs an acknowledgement. Severity `info` never does."""
    return alert["severity"] != "info" and not alert["handling"]["acknowledged_at"]


def _find_subject(alert: JsonDocument) -> object:
    subject = SUBJECTS.get(alert["kind"])
    return alert["id"] if subject is None else (alert["kind"], alert["customer"], subject(alert["details"]))


def _get_threshold(alert: JsonDocument) -> int:
    details = alert["details"]
    return int(details.get("threshold", details.get("amount_cents", 0)))
