"""Two versions of edgeproxy side by side: their difference, and whether it is significant."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from loadtest.bench.measure.slice import Slice

RESAMPLES = 2000
TOLERANCE = 0.02
"""A share of the CPU. A smaller difference is no change, and a wider interval on either side proves nothing."""

PARTS: dict[str, Callable[[Slice], float]] = {
    "cpu": attrgetter("cpu"),
    "user": attrgetter("user"),
    "system": attrgetter("system"),
}
"""The compared figures. A change that saves instructions may cost system calls, so their sum decides."""


@dataclass(frozen=True)
class Difference:
    """This version's cost relative to the other one: the median over the rounds, and its 95 % interval."""

    scenario: str
    part: str
    """`cpu`, or `user` or `system` of it."""
    ratio: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> str:
        """The verdict: `same`, `dearer`, `cheaper`, or `too noisy` if the interval allows more than one."""
        if self.low > 1 + TOLERANCE:
            return "dearer"
        if self.high < 1 - TOLERANCE:
            return "cheaper"
        return "same" if self.low >= 1 - TOLERANCE and self.high <= 1 + TOLERANCE else "too noisy"


def compare(slices: Sequence[Slice], this: str, other: str) -> list[Difference]:
    """Compare two peers by scenario, from slices of equal rounds. Wrong and disturbed slices do not count.

    The interval of the median is a bootstrap over the rounds (Efron 1979), with a fixed seed.
    """
    by_scenario: dict[str, dict[int, dict[str, Slice]]] = {}
    for slice_ in slices:
        if not slice_.wrong and not slice_.disturbed and slice_.peer in (this, other):
            by_scenario.setdefault(slice_.scenario, {}).setdefault(slice_.round, {})[slice_.peer] = slice_
    differences = []
    for scenario, rounds in by_scenario.items():
        pairs = [(costs[this], costs[other]) for costs in rounds.values() if len(costs) == 2]
        for part, cost in PARTS.items():
            ratios = [cost(one) / cost(another) for one, another in pairs if cost(one) > 0 and cost(another) > 0]
            if len(ratios) > 1:
                differences.append(_difference(scenario, part, ratios))
    return differences


def _difference(scenario: str, part: str, ratios: list[float]) -> Difference:
    draw = random.Random(0)
    medians = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    low, high = medians[RESAMPLES * 25 // 1000], medians[RESAMPLES * 975 // 1000 - 1]
    return Difference(scenario, part, median(ratios), low, high, len(ratios))
