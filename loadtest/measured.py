"""The measured values beside the accepted ones, threshold by threshold. Pure. Times are milliseconds, shares
percent.
"""

from collections.abc import Iterator
from math import isnan
from typing import NamedTuple

from loadtest import conservation
from loadtest.evidence import JUDGED, LAG, MOVED, TIMED, Evidence, Verdict, total

HOLDS, BROKEN, NOT_JUDGED = "holds", "broken", "not judged"


class Measured(NamedTuple):
    """A threshold and its subject. `measured` is None without a measurement. If `is_least`, the value must not be
    lower.
    """

    threshold: str
    of: str
    measured: float | None
    accepted: float
    unit: str
    is_least: bool = False

    @property
    def state(self) -> str:
        """Return whether the threshold holds."""
        if self.measured is None:
            return NOT_JUDGED
        broken = self.measured < self.accepted if self.is_least else self.measured > self.accepted
        return BROKEN if broken else HOLDS

    def __str__(self) -> str:
        measured = "–" if self.measured is None else f"{self.measured:,.4g}"
        accepted = f"{'≥' if self.is_least else '≤'} {self.accepted:,.4g} {self.unit}"
        return f"{self.threshold:12} {self.of:24} {measured:>9}  {accepted:<16} {self.state}"


def list_measured(evidence: Evidence, found: Verdict) -> Iterator[Measured]:
    """Yield all thresholds of a run, in the order of the workload file."""
    workload, thresholds = evidence.workload, evidence.workload.thresholds
    counts = found.counts
    due = max(counts["due"], 1)
    for region in workload.regions:
        yield _latency("p95", region, found.p95.get(region, float("nan")), thresholds.p95)
    for region in workload.regions:
        moved = total(found.histograms, region, TIMED, MOVED).percentile(JUDGED)
        if not isnan(moved):
            yield _latency("moved_p95", region, moved, thresholds.moved_p95.at(evidence.distance))
    if not any(place == MOVED for *_, place in found.histograms):
        yield _latency("moved_p95", "all", float("nan"), thresholds.moved_p95.at(evidence.distance))
    errors = counts["failed"] + counts["lost"]
    yield Measured("error_rate", "all", 100 * errors / due, 100 * thresholds.error_rate, "%")
    yield Measured("lost", "all", counts["lost"], thresholds.lost, "requests")
    yield Measured("started", "all", 100 * counts["started"] / due, 100 * thresholds.started, "%", is_least=True)
    yield Measured("achieved", "all", 100 * found.achieved / due, 100 * thresholds.achieved, "%", is_least=True)
    for kind, (wrong, asked) in sorted(found.false_429.items()):
        share = None if _is_unjudged(found, "false_429", kind) else 100 * wrong / max(asked, 1)
        yield Measured("false_429", kind, share, 100 * thresholds.false_429, "%")
    yield from _list_limits(evidence, found)
    differing = None if evidence.accounts is None else len(list(conservation.breaches(evidence.accounts)))
    yield Measured("conserved", "customers that differ", differing if thresholds.conserved else None, 0, "customers")
    lag = total(found.histograms, None, (LAG,)).percentile(JUDGED)
    yield _latency("lag p95", "the generator", lag, thresholds.p95 / 8)


def _latency(threshold: str, of: str, seconds: float, accepted: float) -> Measured:
    return Measured(threshold, of, None if isnan(seconds) else 1000 * seconds, 1000 * accepted, "ms")


def _is_unjudged(found: Verdict, threshold: str, kind: str) -> bool:
    """Return whether a tier's threshold is not judged at all."""
    return any(
        one.threshold == threshold
        if one.whole
        else one.threshold.startswith(f"{threshold} of ") and kind in one.threshold
        for one in found.unjudged
    )


def _list_limits(evidence: Evidence, found: Verdict) -> Iterator[Measured]:
    """Yield the fullest window of each tier, beside the accepted number."""
    for kind in evidence.workload.limits:
        those = [(one, name) for name, one in found.worst.items() if name.rpartition("-")[0] == kind]
        if those:
            worst, name = max(those, key=lambda one: one[0].admitted / one[0].accepted)
            admitted = None if _is_unjudged(found, "limit_error", kind) else worst.admitted
            yield Measured("limit_error", f"{name}, a window", admitted, round(worst.accepted, 1), "requests")
