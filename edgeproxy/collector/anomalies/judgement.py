"""Judgement of hours and days by a baseline, and actions for findings. Pure."""

from typing import Literal, NamedTuple

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.alerts.kinds import Severity
from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, Baseline, Hours
from edgeproxy.config.collector.anomalies import Thresholds

Kind = Literal["volume", "pattern", "both"]

AT_ONCE = 2.0
"""A single hour above this multiple of the threshold is a finding. Below it, two consecutive hours are needed."""
RATIO_MIN = 1.5
"""Below this multiple of the usual usage there is no finding, even if usage is very regular."""
DROP_MAX = 0.5
"""Above this part of the usual usage, a day counts as no drop."""
PAGE_RATIO = 5.0
"""From this multiple of the usual usage on, a finding has the severity `page`."""

PAUSE_UNITS_MIN = 1000
"""With fewer units in an hour no customer is paused."""

Reason = tuple[Kind, bool]
"""The kind of a finding, and True if usage is above usual."""
ACTIONS: dict[Reason, str] = {
    (
        "volume",
        True,
    ): "ask the customer; if nobody expected it, look which keys it came with, and rotate or limit these",
    (
        "volume",
        False,
    ): "look whether the customer's requests are refused, or no longer come: an integration may be broken",
    (
        "pattern",
        True,
    ): "look which keys were used at hours at which they are not, and from where: somebody else may have one",
    (
        "pattern",
        False,
    ): "look which keys were used at hours at which they are not, and from where: somebody else may have one",
    ("both", True): "look at the keys at once: if the customer knows nothing of it, pause it and revoke them",
    ("both", False): "look whether a part of the customer's requests no longer comes, or is refused",
}
"""An operator's action for a finding, by its kind and by whether usage is above the expected value."""


class Finding(NamedTuple):
    """An unusual hour or day with its `value` and its `expected` value."""

    kind: Kind
    severity: Severity
    score: float
    likeness: float | None
    """The similarity of the day to the baseline, or None if not judged."""
    value: int
    expected: float
    at: int
    """The Unix second when the hour or day begins."""

    @property
    def is_more(self) -> bool:
        """Return True if usage is above usual."""
        return self.value >= self.expected

    @property
    def action(self) -> str:
        """An operator's action for the finding."""
        return ACTIONS[self.kind, self.is_more]

    @property
    def details(self) -> JsonObject:
        """Return the facts of the finding for alerts and the API."""
        values: JsonObject = {
            "kind": self.kind,
            "value": self.value,
            "expected": round(self.expected),
            "score": round(self.score, 1),
        }
        return {**values, "likeness": None if self.likeness is None else round(self.likeness, 3), "action": self.action}


def judge_hour(baseline: Baseline, hours: Hours, hour: int, thresholds: Thresholds) -> Finding | None:
    """Return a finding if an hour has far more than usual, or more than usual for the second hour in a row."""
    value, expected = hours.get(hour, 0), baseline.expected(hour)
    score = baseline.score(hour, value)
    if score < thresholds.score or value < RATIO_MIN * expected:
        return None
    before = baseline.score(hour - HOUR, hours.get(hour - HOUR, 0))
    if score < AT_ONCE * thresholds.score and before < thresholds.score:
        return None
    return Finding("volume", _compute_severity(value, expected), score, None, value, expected, hour)


def judge_day(baseline: Baseline, hours: Hours, day: int, thresholds: Thresholds) -> Finding | None:
    """Return a finding if a completed day is unusual in its volume or its shape."""
    value = sum(hours.get(day + n * HOUR, 0) for n in range(DAY_HOURS))
    expected = baseline.expected_day(day)
    score = baseline.day_score(day, value)
    more = score >= thresholds.score and value >= RATIO_MIN * expected
    less = score <= -thresholds.score and value <= DROP_MAX * expected
    own = baseline.compute_likeness(hours, day)
    likeness = None if own is None else min(1.0, own / baseline.likeness)
    other = likeness is not None and likeness < thresholds.similarity
    if not (more or less or other):
        return None
    if not (more or less):
        return Finding("pattern", "info", score, likeness, value, expected, day)
    if not other:
        severity: Severity = _compute_severity(value, expected) if more else "warn"
        return Finding("volume", severity, score, likeness, value, expected, day)
    return Finding("both", "page" if more else "warn", score, likeness, value, expected, day)


def judge_pause(baseline: Baseline, hours: Hours, hour: int, thresholds: Thresholds) -> Finding | None:
    """Return a finding if an hour, complete or not, has so much usage that its customer is paused."""
    value, expected = hours.get(hour, 0), baseline.expected(hour)
    score = baseline.score(hour, value)
    if thresholds.pause is None or score < thresholds.score or value < thresholds.pause * max(expected, 1.0):
        return None
    if value < PAUSE_UNITS_MIN:
        return None
    return Finding("volume", "page", score, None, value, expected, hour)


def merge_findings(one: Finding | None, other: Finding | None) -> Finding | None:
    """Merge two findings of a day: the more severe one, of kind `both` if the kinds differ."""
    if one is None or other is None:
        return one or other
    severer = max(one, other, key=lambda each: (SEVERITY_RANKS[each.severity], abs(each.score)))
    kind: Kind = one.kind if one.kind == other.kind else "both"
    severity: Severity = "page" if kind == "both" and severer.is_more else severer.severity
    return severer._replace(
        kind=kind, severity=severity, likeness=one.likeness if one.likeness is not None else other.likeness
    )


SEVERITY_RANKS: dict[Severity, int] = {"info": 0, "warn": 1, "page": 2}


def _compute_severity(value: int, expected: float) -> Severity:
    return "page" if value >= PAGE_RATIO * max(expected, 1.0) else "warn"


def start_of_day(second: int) -> int:
    """Return the Unix second when the UTC day of a Unix second begins."""
    return second - second % DAY
