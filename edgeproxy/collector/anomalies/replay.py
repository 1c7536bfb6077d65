"""A replay of histories: each week is judged by the baseline of earlier weeks, as the job does. Pure."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, WEEK, WEEKS_MIN, Baseline, Hours
from edgeproxy.collector.anomalies.history import Histories, Planted, plant_changes
from edgeproxy.collector.anomalies.judgement import Finding, judge_day, judge_hour, merge_findings
from edgeproxy.config.collector.anomalies import Thresholds

MONTH_DAYS = 30.0


class ReplayFigures(NamedTuple):
    """The figures of a replay. Each day of a customer and meter counts once."""

    subjects: int
    days: int
    """Judged days of all subjects."""
    planted: Counter[str]
    """Planted changes, by kind."""
    detected: Counter[str]
    """Detected planted changes, by kind."""
    right: int
    """Days with a finding and a planted change."""
    false: Counter[str]
    """Days with a finding and no planted change, by the kind of the finding."""

    @property
    def precision(self) -> float:
        """Return the share of findings on days with a planted change."""
        reported = self.right + self.false.total()
        return self.right / reported if reported else 1.0

    @property
    def recall(self) -> float:
        """Return the share of planted changes that were detected."""
        return self.detected.total() / self.planted.total() if self.planted else 1.0

    @property
    def false_alarms(self) -> float:
        """Return the false alarms per customer in 30 days."""
        return self.false.total() / (self.days / MONTH_DAYS) if self.days else 0.0


def replay_histories(
    histories: Histories, thresholds: Thresholds, seed: int, *, planting: bool = True
) -> ReplayFigures:
    """Plant changes in histories, in place, and judge them day by day."""
    result = ReplayFigures(len(histories), 0, Counter(), Counter(), 0, Counter())
    for (customer, meter), hours in sorted(histories.items()):
        chance = random.Random(f"{seed}:{customer}:{meter}")
        begin = min(hours) - min(hours) % DAY + DAY
        since, until = begin + WEEKS_MIN * WEEK, max(hours) + HOUR
        until -= until % DAY
        planted = plant_changes(hours, chance, since, until) if planting else []
        findings = judge_days(hours, since, until, thresholds)
        result = add_subject(result, max(0, until - since) // DAY, planted, findings)
    return result


def judge_days(hours: Hours, since: int, until: int, thresholds: Thresholds) -> dict[int, Finding]:
    """Return the finding of each day from `since` on, with baselines rebuilt every week."""
    findings: dict[int, Finding] = {}
    for week in range(since, until, WEEK):
        baseline = Baseline.compute(hours, week)
        if baseline is None:
            continue
        for day in range(week, min(week + WEEK, until), DAY):
            finding = judge_day(baseline, hours, day, thresholds)
            for hour in range(day, day + DAY_HOURS * HOUR, HOUR):
                finding = merge_findings(finding, judge_hour(baseline, hours, hour, thresholds))
            if finding is not None:
                findings[day] = finding
    return findings


def add_subject(
    result: ReplayFigures, days: int, planted: Sequence[Planted], findings: Mapping[int, Finding]
) -> ReplayFigures:
    """Return the figures with another subject added."""
    planted_days = {day for change in planted for day in change.days}
    return result._replace(
        days=result.days + days,
        planted=result.planted + Counter(change.what for change in planted),
        detected=result.detected + Counter(change.what for change in planted if change.days & findings.keys()),
        right=result.right + len(planted_days & findings.keys()),
        false=result.false + Counter(finding.kind for day, finding in findings.items() if day not in planted_days),
    )


def format_result(result: ReplayFigures) -> str:
    """Return the figures as text."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(result.false.items())) or "none"
    lines = []
    if result.planted:
        lines.append(f"{'planted':12}  there  found  recall")
        for what, there in (*sorted(result.planted.items()), ("all", result.planted.total())):
            detected = result.detected.total() if what == "all" else result.detected[what]
            lines.append(f"{what:12}  {there:5}  {detected:5}  {detected / there:6.1%}")
        summary = f"{result.right} days told rightly, {result.false.total()} wrongly"
        lines.append(f"precision {result.precision:.1%}: {summary}")
    of = f"{result.subjects} of them, {result.days} days, {result.false.total()} alarms: {kinds}"
    return "\n".join([*lines, f"false alarms of a customer and meter in 30 days: {result.false_alarms:.3f} ({of})"])
