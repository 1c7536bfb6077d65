"""Whether an hour or a day is as usual, and if not what to do: decided on a baseline. Pure."""

from typing import Any, Literal, NamedTuple

from edgeproxy.collector.alerts.kinds import Severity
from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, Baseline, Hours
from edgeproxy.config.collector.anomalies import Thresholds

Kind = Literal["volume", "pattern", "both"]

AT_ONCE = 2.0
"""By how many times the threshold one hour is above it to be told without a second one."""
RATIO_MIN = 1.5
"""What is not this many times what is usual is nothing to speak of, however regular that is."""
DROP_MAX = 0.5
"""A day with more than this part of what is usual has not dropped."""
LOUD = 5.0
"""What is this many times what is usual wakes somebody."""

PAUSE_UNITS_MIN = 1000
"""What an hour must come to for anybody to be paused: five times next to nothing is next to nothing."""

Reason = tuple[Kind, bool]
"""What is unusual, and whether it is more than usual."""
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
"""What to do about it."""


class Finding(NamedTuple):
    """What was not as usual. `value` and `expected` are of the hour or the day that shows it."""

    kind: Kind
    severity: Severity
    score: float
    likeness: float | None
    """The day's, of what is usual for it; None where it was not looked at."""
    value: int
    expected: float
    at: int
    """The Unix second at which that hour or day begins."""

    @property
    def is_more(self) -> bool:
        """Whether it is more than usual."""
        return self.value >= self.expected

    @property
    def action(self) -> str:
        """What to do about it."""
        return ACTIONS[self.kind, self.is_more]

    @property
    def details(self) -> dict[str, Any]:
        """What is told of it."""
        values = {
            "kind": self.kind,
            "value": self.value,
            "expected": round(self.expected),
            "score": round(self.score, 1),
        }
        return {**values, "likeness": None if self.likeness is None else round(self.likeness, 3), "action": self.action}


def judge_hour(baseline: Baseline, hours: Hours, hour: int, thresholds: Thresholds) -> Finding | None:
    """Whether more was used in an hour than is usual: far more, or more for the second hour in a row."""
    value, expected = hours.get(hour, 0), baseline.expected(hour)
    score = baseline.score(hour, value)
    if score < thresholds.score or value < RATIO_MIN * expected:
        return None
    before = baseline.score(hour - HOUR, hours.get(hour - HOUR, 0))
    if score < AT_ONCE * thresholds.score and before < thresholds.score:
        return None
    return Finding("volume", _compute_severity(value, expected), score, None, value, expected, hour)


def judge_day(baseline: Baseline, hours: Hours, day: int, thresholds: Thresholds) -> Finding | None:
    """Whether a day that is over was not as usual, by what it comes to or by its hours."""
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
    """Whether an hour, be it over or not, has so many times what is usual that its customer is paused."""
    value, expected = hours.get(hour, 0), baseline.expected(hour)
    score = baseline.score(hour, value)
    if thresholds.pause is None or score < thresholds.score or value < thresholds.pause * max(expected, 1.0):
        return None
    if value < PAUSE_UNITS_MIN:
        return None
    return Finding("volume", "page", score, None, value, expected, hour)


def merge_findings(one: Finding | None, other: Finding | None) -> Finding | None:
    """One finding of an hour's and of its day's: the louder one, of `both` kinds where they are of different ones."""
    if one is None or other is None:
        return one or other
    louder = max(one, other, key=lambda each: (LOUDNESS[each.severity], abs(each.score)))
    kind: Kind = one.kind if one.kind == other.kind else "both"
    severity: Severity = "page" if kind == "both" and louder.is_more else louder.severity
    return louder._replace(
        kind=kind, severity=severity, likeness=one.likeness if one.likeness is not None else other.likeness
    )


LOUDNESS: dict[Severity, int] = {"info": 0, "warn": 1, "page": 2}


def _compute_severity(value: int, expected: float) -> Severity:
    return "page" if value >= LOUD * max(expected, 1.0) else "warn"


def start_of_day(second: int) -> int:
    """The Unix second at which the day of UTC begins that another one is in."""
    return second - second % DAY
