"""What would have been told of histories, each week judged by the baseline of those before it, as by the job. Pure."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, WEEK, WEEKS_MIN, Baseline, Hours
from edgeproxy.collector.anomalies.history import Histories, Planted, plant
from edgeproxy.collector.anomalies.judgement import Finding, judge_day, judge_hour, together
from edgeproxy.config.anomalies import Thresholds

MONTH_DAYS = 30.0


class Figures(NamedTuple):
    """What came of a replay. A day of a customer and meter is found once, as it is told once."""

    subjects: int
    days: int
    """Days that were judged, of all subjects."""
    planted: Counter[str]
    """What was there to be found, by what it is."""
    found: Counter[str]
    """Of it, what was found."""
    right: int
    """Days that were told and that something was planted in."""
    false: Counter[str]
    """Days that were told and that nothing was planted in, by the kind of what was told."""

    @property
    def precision(self) -> float:
        """Of what was told, the part that something was planted in."""
        told = self.right + self.false.total()
        return self.right / told if told else 1.0

    @property
    def recall(self) -> float:
        """Of what was planted, the part that was found."""
        return self.found.total() / self.planted.total() if self.planted else 1.0

    @property
    def false_alarms(self) -> float:
        """False alarms of a customer in 30 days."""
        return self.false.total() / (self.days / MONTH_DAYS) if self.days else 0.0


def replay(histories: Histories, thresholds: Thresholds, seed: int, *, planting: bool = True) -> Figures:
    """Plant changes in histories, which are changed by that, and judge them day by day."""
    figures = Figures(len(histories), 0, Counter(), Counter(), 0, Counter())
    for (customer, meter), hours in sorted(histories.items()):
        chance = random.Random(f"{seed}:{customer}:{meter}")
        begin = min(hours) - min(hours) % DAY + DAY
        since, until = begin + WEEKS_MIN * WEEK, max(hours) + HOUR
        until -= until % DAY
        planted = plant(hours, chance, since, until) if planting else []
        told = judged(hours, since, until, thresholds)
        figures = counted(figures, max(0, until - since) // DAY, planted, told)
    return figures


def judged(hours: Hours, since: int, until: int, thresholds: Thresholds) -> dict[int, Finding]:
    """What is found on each day from `since` on, with the baselines rebuilt every week."""
    told: dict[int, Finding] = {}
    for week in range(since, until, WEEK):
        baseline = Baseline.of(hours, week)
        if baseline is None:
            continue
        for day in range(week, min(week + WEEK, until), DAY):
            finding = judge_day(baseline, hours, day, thresholds)
            for hour in range(day, day + DAY_HOURS * HOUR, HOUR):
                finding = together(finding, judge_hour(baseline, hours, hour, thresholds))
            if finding is not None:
                told[day] = finding
    return told


def counted(figures: Figures, days: int, planted: Sequence[Planted], told: Mapping[int, Finding]) -> Figures:
    """Add a subject to the figures."""
    labelled = {day for one in planted for day in one.days}
    return figures._replace(
        days=figures.days + days,
        planted=figures.planted + Counter(one.what for one in planted),
        found=figures.found + Counter(one.what for one in planted if one.days & told.keys()),
        right=figures.right + len(labelled & told.keys()),
        false=figures.false + Counter(finding.kind for day, finding in told.items() if day not in labelled),
    )


def shown(figures: Figures) -> str:
    """The figures for people."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(figures.false.items())) or "none"
    lines = []
    if figures.planted:
        lines.append(f"{'planted':12}  there  found  recall")
        for what, there in (*sorted(figures.planted.items()), ("all", figures.planted.total())):
            found = figures.found.total() if what == "all" else figures.found[what]
            lines.append(f"{what:12}  {there:5}  {found:5}  {found / there:6.1%}")
        told = f"{figures.right} days told rightly, {figures.false.total()} wrongly"
        lines.append(f"precision {figures.precision:.1%}: {told}")
    of = f"{figures.subjects} of them, {figures.days} days, {figures.false.total()} alarms: {kinds}"
    return "\n".join([*lines, f"false alarms of a customer and meter in 30 days: {figures.false_alarms:.3f} ({of})"])
