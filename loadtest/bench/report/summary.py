"""Medians, best slices and ratios of the measurements."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.bench.measure.slice import Slice


@dataclass(frozen=True)
class Cost:
    """CPU in µs per request of one peer in one scenario.

    `ratio` is the median over the rounds of its ratio to the reference *in that round*, or None if that was not
    measured. Of `slices` slices, `disturbed` shared their core, and `idle` were not kept busy.
    """

    peer: str
    scenario: str
    median: float
    best: float
    control: float
    ratio: float | None
    rate: float
    slices: int
    disturbed: int
    idle: int


def costs(slices: Sequence[Slice], reference: str) -> list[Cost]:
    """One for each peer and scenario that has a right slice, in the order of the first."""
    right = [slice_ for slice_ in slices if not slice_.wrong]
    yardsticks = {(slice_.round, slice_.scenario): slice_.cpu for slice_ in right if slice_.peer == reference}
    pairs = dict.fromkeys((slice_.peer, slice_.scenario) for slice_ in right)
    return [_cost([slice_ for slice_ in right if (slice_.peer, slice_.scenario) == pair], yardsticks) for pair in pairs]


def _cost(slices: Sequence[Slice], yardsticks: dict[tuple[int, str], float]) -> Cost:
    ratios = [
        slice_.cpu / yardsticks[slice_.round, slice_.scenario]
        for slice_ in slices
        if (slice_.round, slice_.scenario) in yardsticks
    ]
    return Cost(
        peer=slices[0].peer,
        scenario=slices[0].scenario,
        median=median(slice_.cpu for slice_ in slices),
        best=min(slice_.cpu for slice_ in slices),
        control=median(slice_.control for slice_ in slices),
        ratio=median(ratios) if ratios else None,
        rate=median(slice_.rate for slice_ in slices),
        slices=len(slices),
        disturbed=sum(slice_.disturbed for slice_ in slices),
        idle=sum(slice_.idle for slice_ in slices),
    )


def proportion(slices: Iterable[Slice], of: tuple[str, str], to: tuple[str, str]) -> float | None:
    """Return the median over the rounds of the ratio of one (peer, scenario) to another in that round."""
    by_round: dict[int, dict[tuple[str, str], float]] = {}
    for slice_ in slices:
        if not slice_.wrong:
            by_round.setdefault(slice_.round, {})[slice_.peer, slice_.scenario] = slice_.cpu
    found = [these[of] / these[to] for these in by_round.values() if of in these and to in these]
    return median(found) if found else None
