"""What would have been told of histories, each week judged by the baseline of those before it, as by the job. Pure."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, WEEK, WEEKS_MIN, Baseline, Hours
from edgeproxy.collector.anomalies.history import Histories, Planted, plant_changes
from edgeproxy.collector.anomalies.judgement import Finding, judge_day, judge_hour, merge_findings
from edgeproxy.config.collector.anomalies import Thresholds

MONTH_DAYS = 30.0


class ReplayResult(NamedTuple):
    """What came of a replay. A day of a customer and meter is found once, as it is told once."""

    subjects: int
    days: int
    """Days that were judged, of all subjects."""
    planted: Counter[str]
    """What was there to be found, by what it is."""
    detected: Counter[str]
    """Of it, what was found."""
    right: int
    """Days that were told and that something was planted in."""
    false: Counter[str]
    """Days that were told and that nothing was planted in, by the kind of what was told."""

    @property
    def precision(self) -> float:
        """Of what was told, the part that something was planted in."""
        reported = self.right + self.false.total()
        return self.right / reported if reported else 1.0

    @property
    def recall(self) -> float:
        """Of what was planted, the part that was found."""
        return self.detected.total() / self.planted.total() if self.planted else 1.0

    @property
    def false_alarms(self) -> float:
        """False alarms of a customer in 30 days."""
        return self.false.total() / (self.days / MONTH_DAYS) if self.days else 0.0


def replay_histories(histories: Histories, thresholds: Thresholds, seed: int, *, planting: bool = True) -> ReplayResult:
    """Plant changes in histories, which are changed by that, and judge them day by day."""
    result = ReplayResult(len(histories), 0, Counter(), Counter(), 0, Counter())
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
    """What is found on each day from `since` on, with the baselines rebuilt every week."""
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
    result: ReplayResult, days: int, planted: Sequence[Planted], findings: Mapping[int, Finding]
) -> ReplayResult:
    """Add a subject to the figures."""
    planted_days = {day for one in planted for day in one.days}
    return result._replace(
        days=result.days + days,
        planted=result.planted + Counter(one.what for one in planted),
        detected=result.detected + Counter(one.what for one in planted if one.days & findings.keys()),
        right=result.right + len(planted_days & findings.keys()),
        false=result.false + Counter(finding.kind for day, finding in findings.items() if day not in planted_days),
    )


def format_result(result: ReplayResult) -> str:
    """The figures for people."""
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
